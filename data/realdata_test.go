package data

import (
	"context"
	"os"
	"path/filepath"
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
			if c.use == UseSFT || c.use == UsePretrain {
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
