package safetensors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// someTensors gives n tensors of ten bytes each.
func someTensors(n int) []Tensor {
	var ts []Tensor
	for i := range n {
		ts = append(ts, Tensor{fmt.Sprintf("layer.%d.weight", i), "U8", []int{5, 2}, bytes.Repeat([]byte{byte(i)}, 10)})
	}
	return ts
}

func fileNames(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestWriteFolder(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "config.json"), []byte("{}"), 0o644)
	for _, c := range []struct {
		tensors int
		most    int64
		want    []string
	}{
		{5, 0, []string{SingleFile}},
		{5, 50, []string{SingleFile}},
		{5, 49, []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", IndexFile}},
		{5, 20, []string{"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors", IndexFile}},
		{2, 1, []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", IndexFile}},
		{0, 1, []string{SingleFile}}, // after shards: these must go
	} {
		t.Run(fmt.Sprintf("%d tensors in shards of %d", c.tensors, c.most), func(t *testing.T) {
			tensors := someTensors(c.tensors)
			if err := WriteFolder(dir, tensors, c.most); err != nil {
				t.Fatal(err)
			}
			if got, want := fileNames(t, dir), append([]string{"config.json"}, c.want...); !slices.Equal(got, want) {
				t.Fatalf("files %q, want %q", got, want)
			}
			folder, err := OpenFolder(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer folder.Close()
			if len(folder.Names()) != len(tensors) {
				t.Errorf("names %q, want %d", folder.Names(), len(tensors))
			}
			if folder.Bytes() != int64(10*len(tensors)) {
				t.Errorf("%d bytes, want %d", folder.Bytes(), 10*len(tensors))
			}
			if folder.Metadata()["format"] != "pt" {
				t.Errorf("metadata %v", folder.Metadata())
			}
			for _, want := range tensors {
				if got, ok := folder.Tensor(want.Name); !ok || !sameTensor(got, want) {
					t.Errorf("%s: got %+v, %v", want.Name, got, ok)
				}
			}
			if _, ok := folder.Tensor("absent"); ok {
				t.Error("found an absent tensor")
			}
		})
	}
}

func TestIndexTotalSize(t *testing.T) {
	dir := t.TempDir()
	if err := WriteFolder(dir, someTensors(3), 10); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, IndexFile))
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Metadata  map[string]int    `json:"metadata"`
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(text, &index); err != nil {
		t.Fatal(err)
	}
	if index.Metadata["total_size"] != 30 || len(index.WeightMap) != 3 ||
		index.WeightMap["layer.1.weight"] != "model-00002-of-00003.safetensors" {
		t.Errorf("index %s", text)
	}
}

func TestFolderWriterOrder(t *testing.T) {
	specs := []Spec{{"a", "U8", []int{10}}, {"b", "U8", []int{10}}, {"empty", "U8", []int{0}}}
	begin := func(t *testing.T) *FolderWriter {
		w, err := CreateFolder(t.TempDir(), nil, specs, 10)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	ten := make([]byte, 10)
	t.Run("backwards", func(t *testing.T) {
		w := begin(t)
		if err := w.Write("a", ten); err != nil {
			t.Fatal(err)
		}
		if err := w.Write("b", ten); err != nil {
			t.Fatal(err)
		}
		if err := w.Write("a", nil); err == nil || !strings.Contains(err.Error(), "announced order") {
			t.Errorf("writing to a closed shard: %v", err)
		}
		if err := w.Close(); err == nil {
			t.Error("Close forgot the error")
		}
	})
	t.Run("skipping", func(t *testing.T) {
		w := begin(t)
		if err := w.Write("b", ten); err == nil || !strings.Contains(err.Error(), `"a"`) {
			t.Errorf("skipping a shard: %v, want an error naming the missing tensor", err)
		}
		w.Abort()
		if left := fileNames(t, w.dir); len(left) != 0 {
			t.Errorf("left %q", left)
		}
	})
	t.Run("incomplete", func(t *testing.T) {
		w := begin(t)
		if err := w.Write("a", ten[:5]); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err == nil || !strings.Contains(err.Error(), `"a"`) || !strings.Contains(err.Error(), "5 bytes") {
			t.Errorf("Close: %v", err)
		}
		if left := fileNames(t, w.dir); len(left) != 0 {
			t.Errorf("left %q", left)
		}
	})
}

func TestOpenFolderRefuses(t *testing.T) {
	index := func(weightMap string) string { return `{"metadata":{"total_size":20},"weight_map":` + weightMap + `}` }
	const one, two = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
	good := index(`{"layer.0.weight":"` + one + `","layer.1.weight":"` + two + `"}`)
	for name, c := range map[string]struct {
		index string
		spoil func(dir string) error
		want  []string
	}{
		"missing shard": {good, func(dir string) error { return os.Remove(filepath.Join(dir, two)) },
			[]string{two, "missing", "layer.1.weight"}},
		"truncated shard": {good, func(dir string) error { return os.Truncate(filepath.Join(dir, two), 40) },
			[]string{two, "cut off"}},
		"listed but absent": {index(`{"layer.0.weight":"` + one + `","layer.1.weight":"` + two + `","ghost":"` + two + `"}`), nil,
			[]string{`"ghost"`, two}},
		"in the wrong shard": {index(`{"layer.0.weight":"` + two + `","layer.1.weight":"` + one + `"}`), nil,
			[]string{"layer.0.weight", one, two}},
		"in two shards": {good, func(dir string) error {
			return WriteFile(filepath.Join(dir, two), nil, someTensors(2))
		}, []string{"layer.0.weight", one, two}},
		"climbing":       {index(`{"a":"../model.safetensors"}`), nil, []string{`"a"`, "refused"}},
		"absolute":       {index(`{"a":"/etc/x.safetensors"}`), nil, []string{`"a"`, "refused"}},
		"backslash":      {index(`{"a":"x\\y.safetensors"}`), nil, []string{`"a"`, "refused"}},
		"drive":          {index(`{"a":"c:x.safetensors"}`), nil, []string{`"a"`, "refused"}},
		"other kind":     {index(`{"a":"pytorch_model.bin"}`), nil, []string{`"a"`, "refused"}},
		"twice":          {index(`{"a":"` + one + `","a":"` + two + `"}`), nil, []string{`"a"`, "twice"}},
		"number":         {index(`{"a":1}`), nil, []string{`"a"`, "string"}},
		"empty map":      {index(`{}`), nil, []string{"empty"}},
		"no map":         {`{"metadata":{}}`, nil, []string{"weight_map"}},
		"not JSON":       {`weights`, nil, []string{IndexFile}},
		"not UTF-8":      {"{\"\xff\"}", nil, []string{IndexFile, "UTF-8"}},
		"JSON cut short": {good[:len(good)-5], nil, []string{IndexFile, "JSON"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := WriteFolder(dir, someTensors(2), 10); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, IndexFile), []byte(c.index), 0o644); err != nil {
				t.Fatal(err)
			}
			if c.spoil != nil {
				if err := c.spoil(dir); err != nil {
					t.Fatal(err)
				}
			}
			_, err := OpenFolder(dir)
			if err == nil {
				t.Fatal("opened")
			}
			for _, part := range append(c.want, dir) {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
		})
	}
	dir := t.TempDir()
	if _, err := OpenFolder(dir); err == nil || !strings.Contains(err.Error(), IndexFile) {
		t.Errorf("empty folder: %v", err)
	}
	os.WriteFile(filepath.Join(dir, "pytorch_model.bin"), nil, 0o644)
	if _, err := OpenFolder(dir); err == nil || !strings.Contains(err.Error(), "pytorch_model.bin") {
		t.Errorf("old folder: %v", err)
	}
	absent := filepath.Join(dir, "absent")
	if _, err := OpenFolder(absent); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), absent) {
		t.Errorf("absent folder: %v", err)
	}
}
