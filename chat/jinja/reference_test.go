package jinja

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// testdata/reference.json holds templates and what transformers' Jinja makes of them; oracle/chat_templates.py
// writes it.
type reference struct {
	Vars  json.RawMessage
	Chats []string
	Cases []struct {
		Template string
		Vars     json.RawMessage
		Text     string
		Fails    bool
	}
}

var referenceNow = time.Date(2024, 7, 6, 5, 4, 3, 0, time.UTC)

func readReference(t testing.TB) reference {
	t.Helper()
	data, err := os.ReadFile("testdata/reference.json")
	if err != nil {
		t.Fatal(err)
	}
	var r reference
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	for i, c := range r.Cases {
		if n, ok := strings.CutPrefix(c.Template, "#"); ok {
			k, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(err)
			}
			r.Cases[i].Template = r.Chats[k]
		}
		if c.Vars == nil {
			r.Cases[i].Vars = r.Vars
		}
	}
	return r
}

func parseVars(t testing.TB, text string) *Dict {
	t.Helper()
	v, err := ParseJSON([]byte(text), 7)
	if err != nil {
		t.Fatal(err)
	}
	d, ok := v.(*Dict)
	if !ok {
		t.Fatalf("variables are %s, not an object", v.typeName())
	}
	return d
}

func render(t testing.TB, template, vars string) (Str, error) {
	t.Helper()
	tmpl, err := Parse("test", template)
	if err != nil {
		return Str{}, err
	}
	return tmpl.Render(parseVars(t, vars), Options{Now: referenceNow})
}

func TestReference(t *testing.T) {
	r := readReference(t)
	if len(r.Cases) < 100 {
		t.Fatalf("only %d cases", len(r.Cases))
	}
	for i, c := range r.Cases {
		got, err := render(t, c.Template, string(c.Vars))
		switch {
		case c.Fails && err == nil:
			t.Errorf("case %d: %q renders as %q, but fails in Jinja", i, c.Template, got.Text)
		case !c.Fails && err != nil:
			t.Errorf("case %d: %q fails: %v; Jinja renders %q", i, c.Template, err, c.Text)
		case !c.Fails && got.Text != c.Text:
			t.Errorf("case %d: %q\n got  %q\n want %q", i, c.Template, got.Text, c.Text)
		}
		checkMarks(t, got)
	}
}

// checkMarks checks what every string must keep: marks inside of the text, sorted, and not overlapping but for
// generation blocks.
func checkMarks(t testing.TB, s Str) {
	t.Helper()
	start, end := 0, 0
	for _, m := range s.marks {
		if m.Start < start || m.Start >= m.End || m.End > len(s.Text) {
			t.Fatalf("marks %v of a text of %d bytes", s.marks, len(s.Text))
		}
		start = m.Start
		if m.Origin == Generation {
			continue
		}
		if m.Start < end {
			t.Fatalf("marks of data overlap: %v", s.marks)
		}
		end = m.End
	}
}

func FuzzRender(f *testing.F) {
	r := readReference(f)
	for i, c := range r.Cases {
		if i%5 == 0 || i > len(r.Cases)-60 {
			f.Add(c.Template, string(c.Vars))
		}
	}
	for _, template := range []string{
		"{% macro m(n) %}{{ m(n+1) if n < 60 }}{{ m(n+1) }}{% endmacro %}{{ m(0) }}",
		"{% set ns = namespace(s='x') %}{% for i in range(64) %}{% set ns.s = '%s%s' % (ns.s, ns.s) %}{% endfor %}",
		"{{ 'abc' * 10**9 }}{{ '%999999999s' % 1 }}{{ '{:999999999}'.format(1) }}{{ 9 ** 9 ** 9 }}",
		"{{ ('a' * 10**6) | replace('', 'b' * 10**6) }}{{ [1] | batch(10**12, 0) | list }}",
		"{{ ''.__class__.__mro__[1].__subclasses__() }}{{ '{0.__class__}'.format(1) }}",
		"{% for x in a recursive %}{% generation %}{{ x.v }}{{ loop(x.c) }}{% endgeneration %}{% else %}{% endfor %}",
		"{% set messages = [{'role': 'system', 'content': \"\\u2028\"}] + (messages or []) %}{{ messages | tojson(indent=2, separators=(',', ':')) }}",
	} {
		f.Add(template, `{"a":[{"v":"x","c":[{"v":"y","c":[]}]}]}`)
	}
	f.Fuzz(func(t *testing.T, template, vars string) {
		tmpl, err := Parse("fuzz", template)
		if err != nil {
			return
		}
		v, err := ParseJSON([]byte(vars), 1)
		if err != nil {
			v = NewDict()
		}
		d, ok := v.(*Dict)
		if !ok {
			d = NewDict()
		}
		s, err := tmpl.Render(d, Options{Limits: Limits{Steps: 20_000, Output: 1 << 20}, Now: referenceNow})
		if err != nil {
			return
		}
		checkMarks(t, s)
	})
}

func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5,null,true,"x\u00e9"]}`, `123456789012345678901234567890`, `1e999`, `[[[[]]]]`, `{"a":1}x`, `"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ParseJSON([]byte(text), 0)
		if err != nil {
			return
		}
		tmpl, err := Parse("json", "{{ v | tojson }}")
		if err != nil {
			t.Fatal(err)
		}
		vars := NewDict()
		vars.Set("v", v)
		s, err := tmpl.Render(vars, Options{})
		if err != nil {
			return
		}
		again, err := ParseJSON([]byte(s.Text), 0)
		if err != nil {
			if strings.Contains(s.Text, "Infinity") { // Python writes it, and no JSON reader must take it
				return
			}
			t.Fatalf("%q became %q: %v", text, s.Text, err)
		}
		in := &interp{limits: Limits{}.withDefaults(), steps: 1 << 30}
		if same, err := in.equal(v, again); err == nil && !same {
			t.Fatalf("%q became %q", text, s.Text)
		}
	})
}

func BenchmarkRender(b *testing.B) {
	r := readReference(b)
	c := r.Cases[len(r.Cases)-1]
	tmpl, err := Parse("bench", c.Template)
	if err != nil {
		b.Fatal(err)
	}
	vars := parseVars(b, string(c.Vars))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tmpl.Render(vars, Options{Now: referenceNow}); err != nil {
			b.Fatal(err)
		}
	}
}
