// Command gen writes the assembly of package cpu and its Go declarations: run
// "go generate ./tensor/cpu" after a change here. With -check it writes nothing
// and fails if a file is not what it would write.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
)

// generators give the generated files by name, relative to package cpu.
var generators = []func() map[string][]byte{rowFiles}

func main() {
	check := flag.Bool("check", false, "compare with the files instead of writing them")
	flag.Parse()
	for _, g := range generators {
		files := g()
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if err := put(name, files[name], *check); err != nil {
				fmt.Fprintln(os.Stderr, "gen:", err)
				os.Exit(1)
			}
		}
	}
}

func put(name string, text []byte, check bool) error {
	if !check {
		return os.WriteFile(name, text, 0o644)
	}
	old, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if !bytes.Equal(old, text) {
		return fmt.Errorf("%s is out of date: run go generate ./tensor/cpu", name)
	}
	return nil
}
