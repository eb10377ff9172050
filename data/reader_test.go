package data

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// readAll collects records as "line/element:content" and errors as "!reason" or
// "!!message" for a final one.
func readAll(t testing.TB, name, content string, opt ReaderOptions) []string {
	t.Helper()
	r, err := NewReader(strings.NewReader(content), name, opt)
	if err != nil {
		return []string{"!!" + err.Error()}
	}
	var out []string
	for range len(content) + 10 {
		rec, err := r.Next()
		var row *RowError
		switch {
		case err == io.EOF:
			return out
		case errors.As(err, &row):
			out = append(out, fmt.Sprintf("%d!%s", row.Where.Line, row.Reason))
		case err != nil:
			return append(out, "!!"+err.Error())
		case rec.IsText:
			out = append(out, fmt.Sprintf("%d:%s", rec.Where.Line, rec.Text))
		default:
			out = append(out, fmt.Sprintf("%d/%d:%s", rec.Where.Line, rec.Where.Element, rec.JSON))
		}
	}
	t.Fatalf("the reader of %q doesn't end", content)
	return nil
}

func gzipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(s))
	w.Close()
	return b.String()
}

func TestReaderLayouts(t *testing.T) {
	cases := []struct {
		about, name, content string
		want                 []string
	}{
		{"lines", "a.jsonl", "{\"a\":1}\n\n{\"a\":2}", []string{`1/0:{"a":1}`, `3/0:{"a":2}`}},
		{"lines with CRLF and BOM", "a.jsonl", "\xef\xbb\xbf{\"a\":1}\r\n{\"a\":2}\r\n", []string{`1/0:{"a":1}`, `2/0:{"a":2}`}},
		{"lines called json", "a.json", "{\"a\":1}\n{\"a\":2}\n", []string{`1/0:{"a":1}`, `2/0:{"a":2}`}},
		{"lines without a name", "a", "{\"a\":1}\n{\"a\":2}\n", []string{`1/0:{"a":1}`, `2/0:{"a":2}`}},
		{"lists as lines", "a.jsonl", "[{\"a\":1}]\n[{\"a\":2}]\n", []string{`1/0:[{"a":1}]`, `2/0:[{"a":2}]`}},
		{"a list", "a.json", "[\n {\"a\":\"]}\\\"\"},\n {\n\"b\":[2]} ]\n", []string{`2/1:{"a":"]}\""}`, "3/2:{\n\"b\":[2]}"}},
		{"a list on one line", "a.json", `[{"a":1},{"a":2}]`, []string{`1/1:{"a":1}`, `1/2:{"a":2}`}},
		{"a list called jsonl", "a.jsonl", "[\n{\"a\":1}\n]", []string{`2/1:{"a":1}`}},
		{"a list of scalars", "a.json", `[1, "x,]" ,null]`, []string{"1/1:1", `1/2:"x,]"`, "1/3:null"}},
		{"an empty list", "a.json", " [ ] ", nil},
		{"an empty file", "a.json", "", nil},
		{"one object over lines", "a.json", "{\n\"a\":1\n}\n{\n\"a\":2}", []string{"1/1:{\n\"a\":1\n}", "4/2:{\n\"a\":2}"}},
		{"a bad line is passed by", "a.jsonl", "{\"a\":1}\n{\"a\":\xff}\n{\"a\":3}", []string{`1/0:{"a":1}`, "2!invalid_utf8", `3/0:{"a":3}`}},
		{"a bad element is passed by", "a.json", "[{\"a\":1},\n{\"a\":\"\xff\"},{\"a\":3}]", []string{`1/1:{"a":1}`, "2!invalid_utf8", `2/3:{"a":3}`}},
		{"text lines", "a.txt", "one\ntwo\r\nthree", []string{"1:one", "2:two", "3:three"}},
		{"text with blank lines", "a.txt", "\none\ntwo\n\n \nthree\n\n", []string{"2:one\ntwo", "6:three"}},
		{"text that looks like JSON", "a.txt", "[x]\n{y}", []string{"1:[x]", "2:{y}"}},
		{"text without a name", "a", "[see below]\nx", []string{"1:[see below]", "2:x"}},
		{"gzip by content", "a.jsonl", gzipped("{\"a\":1}\n"), []string{`1/0:{"a":1}`}},
		{"gzip by name", "a.txt.gz", gzipped("[x]\n"), []string{"1:[x]"}},
	}
	for _, c := range cases {
		t.Run(c.about, func(t *testing.T) {
			got := readAll(t, c.name, c.content, ReaderOptions{})
			if strings.Join(got, "|") != strings.Join(c.want, "|") {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestReaderErrors(t *testing.T) {
	gz := gzipped("{\"a\":1}\n" + strings.Repeat("x", 1000))
	cases := []struct{ about, name, content, want string }{
		{"cut off list", "a.json", "[{\"a\":1},\n{\"a\":", "a.json: line 2: the file ends inside element 2"},
		{"list without end", "a.json", `[{"a":1}`, "without its ]"},
		{"missing comma", "a.json", `[{"a":1} {"a":2}]`, "expected , or ] after element 1"},
		{"trailing text", "a.json", `[{"a":1}] x`, "nothing after the list's ]"},
		{"no value", "a.json", `[{"a":1},,]`, "expected a value as element 2"},
		{"no JSON", "a.json", `hello`, "expected a JSON list of objects"},
		{"parquet", "a.parquet", "PAR1....", "Parquet"},
		{"UTF-16", "a.txt", "\xff\xfeh\x00", "UTF-16"},
		{"cut off gzip", "a.json.gz", gz[:len(gz)-12], "cut off"},
		{"damaged gzip", "a.json.gz", gz[:len(gz)-8] + "xxxxxxxx", "damaged"},
		{"gzip header only", "a.json.gz", "\x1f\x8b\x08", "gzip"},
	}
	for _, c := range cases {
		t.Run(c.about, func(t *testing.T) {
			got := readAll(t, c.name, c.content, ReaderOptions{})
			if len(got) == 0 || !strings.Contains(got[len(got)-1], c.want) || !strings.HasPrefix(got[len(got)-1], "!!") {
				t.Errorf("got %q, want a final error with %q", got, c.want)
			}
		})
	}
}

func TestRowLimit(t *testing.T) {
	opt := ReaderOptions{MaxRowBytes: 20}
	long := strings.Repeat("x", 3<<20)
	for _, c := range []struct {
		name, content string
		want          []string
	}{
		{"a.jsonl", `{"a":1}` + "\n" + `{"a":"` + long + `"}` + "\n" + `{"a":3}`, []string{`1/0:{"a":1}`, "2!row_too_large", `3/0:{"a":3}`}},
		{"a.json", `[{"a":1},{"a":"` + long + `"},{"a":3}]`, []string{`1/1:{"a":1}`, "1!row_too_large", `1/3:{"a":3}`}},
		{"a.txt", "one\n" + long + "\nthree", []string{"1:one", "2!row_too_large", "3:three"}},
		{"a.txt", "12345678901\n12345678901\n\nthree", []string{"1!row_too_large", "4:three"}},
		{"a.jsonl.gz", gzipped("{\"a\":1}\n" + long), []string{`1/0:{"a":1}`, "2!row_too_large"}},
	} {
		if got := readAll(t, c.name, c.content, opt); strings.Join(got, "|") != strings.Join(c.want, "|") {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestTextModes(t *testing.T) {
	content := "a\nb\n\nc\n"
	for mode, want := range map[TextMode]string{TextLines: "1:a|2:b|4:c", TextParagraphs: "1:a\nb|4:c", TextFile: "1:a\nb\n\nc", TextAuto: "1:a\nb|4:c"} {
		if got := strings.Join(readAll(t, "a.txt", content, ReaderOptions{Text: mode}), "|"); got != want {
			t.Errorf("%s: got %q, want %q", mode, got, want)
		}
	}
}

// Any bytes end in records, row errors or one final error; nothing hangs.
func FuzzReader(f *testing.F) {
	for _, s := range []string{"[{\"a\":1},{\"b\":\"\\\"]\"}]", "{\"a\":1}\n{\"a\":2}", "a\n\nb\n", "[[1],[2]]\n[3]", "{\n}", "\xef\xbb\xbf[", "\x1f\x8b\x08\x00", "[1,2,]"} {
		f.Add(s, "a.json")
		f.Add(s, "a.jsonl")
		f.Add(s, "a.txt")
		f.Add(s, "a")
	}
	f.Fuzz(func(t *testing.T, content, name string) {
		for _, limit := range []int{0, 8} {
			for _, mode := range []TextMode{TextAuto, TextParagraphs, TextFile} {
				for _, rec := range readAll(t, name, content, ReaderOptions{MaxRowBytes: limit, Text: mode}) {
					if rec == "" {
						t.Fatal("an empty record")
					}
				}
			}
		}
	})
}
