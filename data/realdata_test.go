package data

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// dataFolder finds the real data: $RINGTAIL_DATA, or ../shared/data beside the
// repository's root.
func dataFolder(t *testing.T) string {
	if dir := os.Getenv("RINGTAIL_DATA"); dir != "" {
		return dir
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			dir = filepath.Join(dir, "..", "shared", "data")
			break
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = up
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("the real data isn't here (%v); set RINGTAIL_DATA to its folder", err)
	}
	return dir
}

// Every real file is read in full; each row that isn't used has a reason.
func TestRealData(t *testing.T) {
	root := dataFolder(t)
	for _, c := range []struct {
		file    string
		records int
		format  Format
		use     Use
		skipped map[Reason]int
	}{
		{"instructionwild/seed_prompts_zh.jsonl", 429, FormatPrompts, UsePrompts, nil},
		{"instructionwild/seed_prompts_en.jsonl", 429, FormatPrompts, UsePrompts, nil},
		{"sft/alpaca_zh_demo.json", 1000, FormatAlpaca, UseSFT, nil},
		{"sft/alpaca_en_demo.json", 999, FormatAlpaca, UseSFT, nil},
		{"sft/identity.json", 91, FormatAlpaca, UseSFT, nil},
		{"sft/sharegpt_zh_400.jsonl.gz", 400, FormatShareGPT, UseSFT, nil},
		{"sft/glaive_toolcall_en_demo.json.gz", 300, FormatShareGPT, UseSFT, nil},
		{"preference/dpo_zh_demo.json", 300, FormatPreference, UsePairs, nil},
		{"preference/dpo_en_demo.json", 300, FormatPreference, UsePairs, nil},
		{"preference/kto_en_demo.json", 300, FormatKTO, UseKTO, nil},
		{"preference/hh_harmless_base_test.jsonl.gz", 2312, FormatHH, UsePairs, map[Reason]int{ReasonEmptyAnswer: 4}},
		{"text/wiki_demo.txt", 30, FormatText, UsePretrain, nil},
		{"text/c4_demo.jsonl", 300, FormatText, UsePretrain, nil},
		{"eval/vicuna_question_80.jsonl", 80, FormatPrompts, UsePrompts, nil},
		{"eval/user_oriented_instructions.jsonl", 252, FormatSelfInstruct, UseSFT, nil},
		{"eval/self_instruct_seed_tasks.jsonl", 175, FormatSelfInstruct, UseSFT, nil},
	} {
		t.Run(c.file, func(t *testing.T) {
			path := filepath.Join(root, c.file)
			rows, st, err := ReadRows(context.Background(), []Source{{Files: []string{path}}}, Options{Use: c.use})
			if err != nil {
				t.Fatal(err)
			}
			s := st.Sources[0]
			if s.Records != c.records || s.Files[0].Format != c.format {
				t.Errorf("read %d rows as %s, want %d as %s", s.Records, s.Files[0].Format, c.records, c.format)
			}
			want := 0
			for reason, n := range c.skipped {
				want += n
				if s.Skipped[reason] == nil || s.Skipped[reason].Count != n {
					t.Errorf("want %d rows skipped as %s", n, reason)
				}
			}
			if s.SkippedRows() != want || len(rows) != s.Rows || s.Rows+want != c.records {
				t.Errorf("%d rows of %d used, skipped: %+v", s.Rows, c.records, s.Skipped)
			}
			t.Logf("notes %v, duplicates %d", s.Notes, s.Duplicates)
			switch c.use {
			case UsePairs, UsePrompts:
				loadPreferences(t, path, c.use, rows)
			case UseSFT, UsePretrain:
				d := load(t, Options{Use: c.use, MaxTokens: 2048, TooLong: TooLongSplit}, Source{Files: []string{path}})
				l := newTestLoader(t, d, LoaderOptions{Epochs: 1, BatchTokens: 1 << 14, MicroTokens: 1 << 12})
				for step := (Step{}); l.Next(&step); {
					seqsOf(t, &step, 1<<12)
				}
				t.Logf("fill rate %.4f", l.FillRate())
			}
		})
	}
}

// loadPreferences loads a file of pairs as rankings, or one of prompts, and compares
// with its rows.
func loadPreferences(t *testing.T, path string, use Use, rows []Row) {
	if use == UsePairs {
		use = UseRankings
	}
	d := load(t, Options{Use: use, Eval: EvalSplit{Fraction: 0.1}}, Source{Files: []string{path}})
	train, eval := d.Sequences()
	if train+eval != len(rows) || train == 0 || eval == 0 {
		t.Errorf("%d sequences to train on and %d held out of %d rows", train, eval, len(rows))
	}
	for i, r := range rows {
		seq, ok := d.Sequence(i)
		want, err := byteEncoder{}.EncodePrompt(r.Messages, nil)
		if !ok || err != nil || seq.Where != r.Where || !slices.Equal(seq.IDs[:len(want)], want) {
			t.Fatalf("sequence %d doesn't begin with the prompt of %s", i, r.Where)
		}
		if n := len(seq.IDs) - len(want); use == UsePrompts && n != 0 || use == UseRankings && len(seq.Answers) != 2 {
			t.Fatalf("%s: %d answers, %d tokens behind the prompt", r.Where, len(seq.Answers), n)
		}
	}
	budget := 2 * d.MaxGroup()
	l := newTestLoader(t, d, LoaderOptions{Epochs: 1, Batch: 32, MicroTokens: budget})
	groups, sequences := 0, 0
	for step := (Step{}); l.Next(&step); sequences += step.Sequences {
		if use == UsePrompts {
			seqsOf(t, &step, budget)
			continue
		}
		groups += len(groupsOf(t, d, &step, budget))
	}
	if use == UsePrompts && sequences != train || use == UseRankings && (groups != train || sequences != 2*train) {
		t.Errorf("an epoch of %d rows has %d rankings of %d answers", train, groups, sequences)
	}
	t.Logf("longest %d, together %d, fill rate %.4f", d.MaxLength(), d.MaxGroup(), l.FillRate())
}
