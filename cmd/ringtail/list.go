package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"ringtail/hub"
)

type listCmd struct {
	JSON bool `help:"Print JSON"`
}

func (c *listCmd) Run(e *env) error {
	cache, err := hub.CacheDir()
	if err != nil {
		return err
	}
	all, err := hub.Scan(cache)
	if err != nil {
		return err
	}
	if c.JSON {
		return listJSON(e, all)
	}
	if len(all) == 0 {
		fmt.Fprintf(e.stderr, "nothing in the cache %s; download with: ringtail pull ORG/NAME\n", cache)
		return nil
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tKIND\tREVISION\tFILES\tSIZE\tDATE")
	for _, r := range all {
		for _, s := range r.Snapshots {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", r.ID, kindOf(r.Dataset), revisions(s), s.Files, hub.Bytes(s.Size), s.Time.Format("2006-01-02"))
		}
		if r.Incomplete > 0 {
			fmt.Fprintf(w, "%s\t%s\t(not complete)\t\t%s\t\n", r.ID, kindOf(r.Dataset), hub.Bytes(r.Incomplete))
		}
	}
	return w.Flush()
}

func kindOf(dataset bool) string {
	if dataset {
		return "data set"
	}
	return "model"
}

// revisions names a snapshot's branches and tags, and its commit.
func revisions(s hub.Snapshot) string { return strings.Join(append(s.Refs, s.Commit[:10]), ", ") }

func listJSON(e *env, all []hub.Cached) error {
	type snapshot struct {
		Commit string   `json:"commit"`
		Refs   []string `json:"refs"`
		Path   string   `json:"path"`
		Files  int      `json:"files"`
		Bytes  int64    `json:"bytes"`
		Time   string   `json:"time"`
	}
	type repo struct {
		Name       string     `json:"name"`
		Kind       string     `json:"kind"`
		Bytes      int64      `json:"bytes"`
		Incomplete int64      `json:"incomplete_bytes"`
		Snapshots  []snapshot `json:"snapshots"`
	}
	out := []repo{}
	for _, r := range all {
		kind := "model"
		if r.Dataset {
			kind = "dataset"
		}
		o := repo{Name: r.ID, Kind: kind, Bytes: r.Size, Incomplete: r.Incomplete, Snapshots: []snapshot{}}
		for _, s := range r.Snapshots {
			o.Snapshots = append(o.Snapshots, snapshot{Commit: s.Commit, Refs: append([]string{}, s.Refs...), Path: s.Dir, Files: s.Files, Bytes: s.Size, Time: s.Time.UTC().Format("2006-01-02T15:04:05Z")})
		}
		out = append(out, o)
	}
	enc := json.NewEncoder(e.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}
