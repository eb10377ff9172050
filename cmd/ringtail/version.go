package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by scripts/release through the linker.
var version = "development"

type versionCmd struct {
	JSON bool `help:"Print JSON"`
}

func (c *versionCmd) Run(e *env) error {
	commit := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = s.Value
			}
		}
	}
	if c.JSON {
		return json.NewEncoder(e.stdout).Encode(map[string]string{"version": version, "commit": commit,
			"go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH})
	}
	if commit != "" {
		commit = ", commit " + commit[:min(12, len(commit))]
	}
	fmt.Fprintf(e.stdout, "ringtail %s%s, %s, %s/%s\n", version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
}
