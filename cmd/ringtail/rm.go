package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"ringtail/hub"
)

type rmCmd struct {
	Name    string `arg:"" placeholder:"ORG/NAME[@REVISION]" help:"Name on the hub; with @ only that branch, tag or commit"`
	Dataset bool   `help:"A data set, not a model"`
	Yes     bool   `short:"y" help:"Don't ask"`
}

func (c *rmCmd) Run(e *env) error {
	repo, err := hub.ParseRepo(c.Name, c.Dataset)
	if err != nil {
		return usageError{err}
	}
	if !strings.Contains(c.Name, "@") {
		repo.Revision = "" // all of them
	}
	cache, err := hub.CacheDir()
	if err != nil {
		return err
	}
	if !c.Yes {
		f, ok := e.stdin.(*os.File)
		if !ok || !term.IsTerminal(int(f.Fd())) {
			return usagef("rm %s: nobody is there to ask; say --yes", c.Name)
		}
		fmt.Fprintf(e.stderr, "Remove %s from the cache %s? [y/N] ", c.Name, cache)
		answer, _ := bufio.NewReader(e.stdin).ReadString('\n')
		if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
			return errQuiet
		}
	}
	freed, err := hub.Remove(cache, repo)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "%s removed, %s freed\n", c.Name, hub.Bytes(freed))
	return nil
}
