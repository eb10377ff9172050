// Command serve is the tests' hub as a program, for oracle/hub_cache.py: it serves the
// folders ROOT/models/ORG/NAME and ROOT/datasets/ORG/NAME, prints its address, and ends
// when its standard input does.
package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"ringtail/hub/hubtest"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: serve ROOT")
		os.Exit(2)
	}
	if err := serve(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(root string) error {
	repos, err := filepath.Glob(filepath.Join(root, "*", "*", "*"))
	if err != nil {
		return err
	}
	s := hubtest.New()
	defer s.Close()
	for _, dir := range repos {
		files := map[string][]byte{}
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			files[filepath.ToSlash(name)], err = os.ReadFile(path)
			return err
		})
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, dir)
		if err != nil {
			return err
		}
		s.Add(filepath.ToSlash(name), files)
	}
	fmt.Println(s.Hub.URL)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
