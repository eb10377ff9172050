package model

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"ringtail/safetensors"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
)

// BenchmarkLoad loads a folder of some 270 MB from the page cache, into new memory
// (load) and into one buffer (stream). Beside it stands what the machine gives: the
// same bytes read into new memory by as many threads (fill), and into one buffer (read).
func BenchmarkLoad(b *testing.B) {
	for _, dtype := range []string{"bfloat16", "float32"} {
		dir := b.TempDir()
		c, err := ParseConfig([]byte(fmt.Sprintf(`{"architectures": ["LlamaForCausalLM"], "dtype": %q, "vocab_size": 32000, "hidden_size": 1024,
			"num_hidden_layers": 5, "num_attention_heads": 16, "intermediate_size": 2816}`, dtype)))
		if err != nil {
			b.Fatal(err)
		}
		m, err := New(c, cpu.New(), Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := m.Save(dir); err != nil {
			b.Fatal(err)
		}
		m.Free()
		file := filepath.Join(dir, safetensors.SingleFile)
		info, err := os.Stat(file)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(dtype+"/load", func(b *testing.B) {
			b.SetBytes(info.Size())
			for b.Loop() {
				m, err := Load(dir, cpu.New(), Options{})
				if err != nil {
					b.Fatal(err)
				}
				m.Free()
			}
		})
		b.Run(dtype+"/open", func(b *testing.B) {
			for b.Loop() {
				_, src, err := Open(dir)
				if err != nil {
					b.Fatal(err)
				}
				src.Close()
			}
		})
		b.Run(dtype+"/stream", func(b *testing.B) {
			b.SetBytes(info.Size())
			buf := make([]float32, 1<<20)
			for b.Loop() {
				_, src, err := Open(dir)
				if err != nil {
					b.Fatal(err)
				}
				for _, name := range src.Names() {
					t, _ := src.Find(name)
					n := 1
					for _, d := range t.Shape {
						n *= d
					}
					for at := 0; at < n; at += len(buf) {
						if err := readParts(t, buf[:min(len(buf), n-at)], at); err != nil {
							b.Fatal(err)
						}
					}
					t.Done()
				}
				src.Close()
			}
		})
		b.Run(dtype+"/fill", func(b *testing.B) {
			b.SetBytes(info.Size())
			for b.Loop() {
				x, buf, err := tensor.New(cpu.New(), tensor.U8, int(info.Size()))
				if err != nil {
					b.Fatal(err)
				}
				f, err := os.Open(file)
				if err != nil {
					b.Fatal(err)
				}
				var all sync.WaitGroup
				parts := runtime.GOMAXPROCS(0)
				bytes := x.Uint8()
				for i := range parts {
					from, to := i*len(bytes)/parts, (i+1)*len(bytes)/parts
					all.Go(func() {
						if _, err := f.ReadAt(bytes[from:to], int64(from)); err != nil {
							b.Error(err)
						}
					})
				}
				all.Wait()
				f.Close()
				buf.Free()
			}
		})
		b.Run(dtype+"/read", func(b *testing.B) {
			b.SetBytes(info.Size())
			buf := make([]byte, 1<<20)
			for b.Loop() {
				f, err := os.Open(file)
				if err != nil {
					b.Fatal(err)
				}
				for {
					if _, err := f.Read(buf); err == io.EOF {
						break
					}
				}
				f.Close()
			}
		})
	}
}
