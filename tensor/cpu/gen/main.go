// Command gen writes the kernels of package cpu: Plan 9 assembly for AVX2,
// AVX-512 and NEON, and the Go declarations that belong to it. Run it by go
// generate in tensor/cpu; its output is checked in.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/format"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// generators make files by name. Each file of this program that writes kernels
// adds its own.
var generators []func() map[string][]byte

func main() {
	dir := flag.String("dir", ".", "folder of package cpu")
	flag.Parse()
	for _, g := range generators {
		files := g()
		names := make([]string, 0, len(files))
		for name := range files {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			if err := write(filepath.Join(*dir, name), files[name]); err != nil {
				fmt.Fprintln(os.Stderr, "gen:", err)
				os.Exit(1)
			}
		}
	}
}

// write replaces a file if its content changed.
func write(path string, text []byte) error {
	if strings.HasSuffix(path, ".go") {
		formatted, err := format.Source(text)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		text = formatted
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	return os.WriteFile(path, text, 0o644)
}
