package data

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"ringtail/data/columnartest"
)

// normalRows reads a file, pattern or folder and returns the normal form of its rows, without where they stand.
func normalRows(t testing.TB, path string, use Use) ([]string, error) {
	t.Helper()
	rows, _, err := ReadRows(t.Context(), []Source{{Files: []string{path}}}, Options{Use: use, BadRows: BadRowsStrict})
	var out []string
	for _, r := range rows {
		r.Where = Location{}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		// Keys of structs come in the order of columns, those of JSON in the order of the line.
		var v any
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		b, _ = json.Marshal(v)
		out = append(out, string(b))
	}
	return out, err
}

// useFor is what the sets of oracle/data_formats.py are for.
var useFor = map[string]Use{"pairs": UsePairs, "kto": UseKTO, "ranking": UseRankings}

// sameContainers compares every container of each set in a folder with its .jsonl.
func sameContainers(t *testing.T, dir string) {
	sets, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil || len(sets) == 0 {
		t.Fatalf("no sets in %s: %v", dir, err)
	}
	for _, set := range sets {
		name := strings.TrimSuffix(filepath.Base(set), ".jsonl")
		use := useFor[name]
		want, err := normalRows(t, set, use)
		if err != nil || len(want) == 0 {
			t.Fatalf("%s: %d rows, %v", set, len(want), err)
		}
		files, _ := filepath.Glob(filepath.Join(dir, name+".*"))
		folders, _ := filepath.Glob(filepath.Join(dir, name+"-*"))
		if len(files) < 2 || len(folders) == 0 {
			t.Fatalf("%s has no other containers", set)
		}
		for _, other := range append(files, folders...) {
			if other == set {
				continue
			}
			t.Run(filepath.Base(other), func(t *testing.T) {
				got, err := normalRows(t, other, use)
				if err != nil {
					t.Fatal(err)
				}
				if len(got) != len(want) {
					t.Fatalf("%d rows, expected %d", len(got), len(want))
				}
				for i := range want {
					if got[i] != want[i] {
						t.Fatalf("row %d is\n%s\nexpected\n%s", i+1, got[i], want[i])
					}
				}
			})
		}
	}
}

// What pyarrow, datasets and zstandard write of one set of rows is read as the same rows.
func TestOracleContainers(t *testing.T) {
	sameContainers(t, filepath.Join(columnartest.Folder(t), "rows"))
}

// The same for the few small files that are kept here.
func TestContainers(t *testing.T) { sameContainers(t, filepath.Join("testdata", "containers")) }

// A container that is cut off or damaged is refused with one line that names it.
func TestDamagedContainers(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "containers", "*.*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		ext := filepath.Ext(file)
		if ext != ".parquet" && ext != ".arrow" && ext != ".zst" {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			whole, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range []int{1, 5, 9, len(whole) / 3, len(whole) / 2, len(whole) - 9, len(whole) - 1} {
				path := write(t, filepath.Base(file), string(whole[:n]))
				_, err := normalRows(t, path, UseSFT)
				if err == nil {
					if ext == ".arrow" && n == len(whole)-1 || n == 1 {
						continue
					}
					t.Errorf("cut after %d of %d bytes: no error", n, len(whole))
					continue
				}
				if msg := err.Error(); !strings.Contains(msg, path) || strings.Contains(strings.TrimSpace(msg), "\n") {
					t.Errorf("cut after %d bytes: %q doesn't name the file in one line", n, msg)
				}
			}
		})
	}
}

func TestCSV(t *testing.T) {
	cases := []struct{ about, name, content, want string }{
		{"plain", "a.csv", "a,b\n1,2\n", `2/0:{"a":"1","b":"2"}`},
		{"no newline at the end", "a.csv", "a,b\n1,2", `2/0:{"a":"1","b":"2"}`},
		{"quotes, separators and line ends", "a.csv", "a,b\n\"x, \"\"y\"\"\n z\",\"\"\n3,4\n", `2/0:{"a":"x, \"y\"\n z","b":""}|4/0:{"a":"3","b":"4"}`},
		{"quote inside of a plain cell", "a.csv", "a,b\n5\" disk,2\n", `2/0:{"a":"5\" disk","b":"2"}`},
		{"CRLF and BOM", "a.csv", "\ufeffa,b\r\n\"1\r\n2\",2\r\n\r\n3,4\r\n", `2/0:{"a":"1\r\n2","b":"2"}|5/0:{"a":"3","b":"4"}`},
		{"semicolons", "a.csv", "a;b\n1,5;2\n", `2/0:{"a":"1,5","b":"2"}`},
		{"tabs", "a.tsv", "a\tb\n1,5\t\"2\t3\"\n", `2/0:{"a":"1,5","b":"2\t3"}`},
		{"one column", "text.csv", "text\nhello\nyou\n", `2/0:{"text":"hello"}|3/0:{"text":"you"}`},
		{"pandas' index", "a.csv", ",a\n0,x\n", `2/0:{"a":"x"}`},
		{"gzip", "a.csv.gz", gzipped("a,b\n1,2\n"), `2/0:{"a":"1","b":"2"}`},
		{"too few cells", "a.csv", "a,b\n1\n3,4\n", `2!bad_csv|3/0:{"a":"3","b":"4"}`},
		{"text behind a quote", "a.csv", "a,b\n\"1\"x,2\n3,4\n", `2!bad_csv|3/0:{"a":"3","b":"4"}`},
		{"not UTF-8", "a.csv", "a,b\n\xff,2\n3,4\n", `2!invalid_utf8|3/0:{"a":"3","b":"4"}`},
		{"too large", "a.csv", "a,b\n" + strings.Repeat("x", 200) + ",2\n3,4\n", `2!row_too_large|3/0:{"a":"3","b":"4"}`},
		{"an open quote", "a.csv", "a,b\n3,4\n\"1,2\n5,6\n", `2/0:{"a":"3","b":"4"}|!!a.csv: line 3: a quote that is opened here is never closed: the file was cut off, or a quote isn't doubled`},
		{"an open quote of great length", "a.csv", "a,b\n\"1,2\n" + strings.Repeat("y\n", 500), `!!a.csv: line 2: a quote that is opened here is never closed: the file was cut off, or a quote isn't doubled`},
		{"two names alike", "a.csv", "a,a\n1,2\n", `!!a.csv: line 1: two columns are called "a"`},
		{"header only", "a.csv", "a,b\n", ""},
		{"empty", "a.csv", "", ""},
	}
	for _, c := range cases {
		t.Run(c.about, func(t *testing.T) {
			if got := strings.Join(readAll(t, c.name, c.content, ReaderOptions{MaxRowBytes: 100}), "|"); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// Cells are what the field wants: numbers, truth values, messages.
func TestCSVFormats(t *testing.T) {
	cases := []struct {
		csv    string
		use    Use
		format Format
		want   string
	}{
		{"instruction,input,output\nadd,1 2,3\n", UseSFT, FormatAlpaca, "u:add\n1 2 a:3"},
		{"prompt,chosen,rejected,score_chosen,score_rejected\nq,[good],b,7.5,2\n", UsePairs, FormatPreference, "u:q | + a:[good] | - a:b | margin 5.5"},
		{"prompt,completion,label\nq,r,False\n", UseKTO, FormatKTO, "u:q a:r | false"},
		{"messages\n\"[{\"\"role\"\":\"\"user\"\",\"\"content\"\":\"\"q\"\"},{\"\"role\"\":\"\"assistant\"\",\"\"content\"\":\"\"r\"\"}]\"\n", UseSFT, FormatMessages, "u:q a:r"},
		{"question,answers,ranks\nq,\"[\"\"a\"\",\"\"b\"\"]\",\"[2,1]\"\n", UseRankings, FormatRanking, "u:q | 1 a:b | 2 a:a"},
	}
	for _, c := range cases {
		rows, _, err := ReadRows(t.Context(), []Source{{Files: []string{write(t, "a.csv", c.csv)}}}, Options{Use: c.use, BadRows: BadRowsStrict})
		if err != nil {
			t.Errorf("%s: %v", c.csv, err)
			continue
		}
		if got := briefRow(rows[0]); got != c.want || rows[0].Format != c.format {
			t.Errorf("%s is %s %s, want %s %s", c.csv, rows[0].Format, got, c.format, c.want)
		}
	}
}

// A zstd frame that unpacks to far more than it holds costs no more than a row.
func TestBombs(t *testing.T) {
	bomb, err := os.ReadFile(filepath.Join("testdata", "bomb.jsonl.zst"))
	if err != nil {
		t.Fatal(err)
	}
	got := readAll(t, "bomb.jsonl.zst", string(bomb), ReaderOptions{MaxRowBytes: 1 << 16})
	if want := "1!row_too_large|2/0:{\"text\":\"small\"}"; strings.Join(got, "|") != want {
		t.Errorf("got %s, want %s", clip(strings.Join(got, "|"), 200), want)
	}
}

// Folders are read by what lies in them.
func TestFolders(t *testing.T) {
	row := func(s string) string { return fmt.Sprintf("{\"text\":%q}\n", s) }
	cases := []struct {
		about string
		files map[string]string
		split string
		eval  bool
		want  string // texts, or an error
	}{
		{"files of one kind", map[string]string{"b.jsonl": row("b"), "a.jsonl": row("a"), "README.md": "# hello", ".hidden.jsonl": row("h")}, "", false, "a b"},
		{"splits by name", map[string]string{"train-00000-of-00002.jsonl": row("t0"), "train-00001-of-00002.jsonl": row("t1"), "test.jsonl": row("e")}, "", false, "t0 t1"},
		{"splits by folder", map[string]string{"data/train/x.jsonl": row("t"), "data/dev/x.jsonl": row("v")}, "", true, "v"},
		{"a split that is asked for", map[string]string{"train.jsonl": row("t"), "test.jsonl": row("e")}, "test", false, "e"},
		{"no split for evaluation", map[string]string{"train.jsonl": row("t")}, "", true, "has no split validation or test: it has train"},
		{"the rest is for training", map[string]string{"part1.jsonl": row("p"), "test.jsonl": row("e")}, "", false, "p"},
		{"a word is not a part of one", map[string]string{"trainer.jsonl": row("x"), "contest.jsonl": row("y")}, "", false, "y x"},
		{"several kinds", map[string]string{"a.jsonl": row("a"), "a.csv": "text\na\n"}, "", false, "several kinds (CSV, JSON)"},
		{"notes beside data", map[string]string{"a.jsonl": row("a"), "notes.txt": "n"}, "", false, "a"},
		{"texts", map[string]string{"b.txt": "b", "a.txt": "a"}, "", false, "a b"},
		{"nothing", map[string]string{"a.bin": "x"}, "", false, "holds no data file"},
		{"configs", map[string]string{"README.md": "---\nlicense: mit\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: [raw/a*.jsonl, \"**/z.jsonl\"]\n  - split: test\n    path: raw/b.jsonl\n---\nText",
			"raw/a1.jsonl": row("a1"), "raw/a2.jsonl": row("a2"), "raw/b.jsonl": row("b"), "x/y/z.jsonl": row("z")}, "", false, "a1 a2 z"},
		{"a config that leads out", map[string]string{"README.md": "---\nconfigs:\n- config_name: default\n  data_files: ../*.jsonl\n---\n", "a.jsonl": row("a")}, "", false, "leads out of the folder"},
		{"a config elsewhere", map[string]string{"README.md": "---\nconfigs:\n- config_name: default\n  data_files: https://example.org/a.jsonl\n---\n"}, "", false, "lies elsewhere"},
		{"several configs", map[string]string{"README.md": "---\nconfigs:\n- config_name: a\n  data_files: a.jsonl\n- config_name: b\n  data_files: b.jsonl\n---\n"}, "", false, "configurations a, b"},
		{"saved files that lead out", map[string]string{"state.json": `{"_data_files":[{"filename":"../a.arrow"}]}`}, "", false, "leads out of the folder"},
		{"saved files that are absent", map[string]string{"state.json": `{"_data_files":[{"filename":"a.arrow"}]}`}, "", false, "a.arrow"},
		{"a saved selection", map[string]string{"state.json": `{"_data_files":[{"filename":"a.arrow"}],"_indices_data_files":[{"filename":"i.arrow"}]}`}, "", false, "flatten_indices"},
	}
	for _, c := range cases {
		t.Run(c.about, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range c.files {
				path := filepath.Join(dir, filepath.FromSlash(name))
				if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			sources := []Source{{Files: []string{dir}, Split: c.split}}
			opt := Options{Use: UsePretrain}
			if c.eval {
				opt.Eval.Sources = sources
				sources = []Source{{Files: []string{write(t, "other.jsonl", row("other"))}}}
			}
			rows, _, err := ReadRows(t.Context(), sources, opt)
			var texts []string
			for _, r := range rows {
				if r.HeldOut == c.eval {
					texts = append(texts, r.Text)
				}
			}
			got := strings.Join(texts, " ")
			if err != nil {
				got = err.Error()
			}
			if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// What encoding/csv writes of any cells is read as these cells; any other bytes end in rows or an error.
func FuzzCSV(f *testing.F) {
	f.Add("a,b\n\"x, \"\"y\"\"\n z\",\"\"\n3,4\n", "x\r\ny", "\"q\"")
	f.Add("\ufeffa;b\r\n1,5;2\r\n\r\n", "", ",")
	f.Fuzz(func(t *testing.T, raw, x, y string) {
		readAll(t, "a.csv", raw, ReaderOptions{MaxRowBytes: 1 << 12})
		if !utf8.ValidString(x) || !utf8.ValidString(y) || strings.ContainsRune(x+y, 0xfeff) {
			return
		}
		// encoding/csv takes \r\n inside of quotes for \n; here it stays.
		var b bytes.Buffer
		w := csv.NewWriter(&b)
		w.WriteAll([][]string{{"first", "second"}, {x, y}})
		rec, err := mustReader(t, b.String()).Next()
		if err != nil {
			t.Fatalf("%q: %v", b.String(), err)
		}
		var got map[string]string
		if err := json.Unmarshal(rec.JSON, &got); err != nil || got["first"] != x || got["second"] != y {
			t.Errorf("%q is read as %s (%v)", b.String(), rec.JSON, err)
		}
	})
}

func mustReader(t *testing.T, content string) *Reader {
	r, err := NewReader(strings.NewReader(content), "a.csv", ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}
