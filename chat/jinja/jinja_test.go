package jinja

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Data is marked in the text wherever it goes, and nothing else is.
func TestMarks(t *testing.T) {
	// In vars every string is data. The wanted text has it in brackets.
	vars := `{"a":" Abc\n","b":"x,y","l":["p","q"],"d":{"k":"v"},"n":5,"u":"é好"}`
	cases := []struct{ template, want string }{
		{"lit{{ a }}lit", "lit[ Abc\n]lit"},
		{"{{ a.strip() }}|{{ a | trim }}|{{ a.lstrip() }}", "[Abc]|[Abc]|[Abc\n]"},
		{"{{ '<' + a.strip() + '>' }}", "<[Abc]>"},
		{"{{ '<' ~ n ~ a.strip() ~ '>' }}", "<5[Abc]>"},
		{"{{ a[1:3] }}{{ a[1] }}{{ a[-2] }}{{ a[3:0:-1] }}", "[AbAccbA]"},
		{"{{ u[1] }}x{{ u[::-1] }}", "[好]x[好é]"},
		{"{{ b.split(',')[1] }}{{ b.split(',') | join('-') }}", "[yx]-[y]"},
		{"{{ b.replace(',', ';') }}{{ 'x' | replace('x', b) }}", "[x];[yx,y]"},
		{"{{ a.strip().upper() }}{{ 'é' ~ u | upper }}", "[ABC]é[É好]"},
		{"{{ ('x' ~ u ~ 'y') | capitalize }}", "X[é好]y"},
		{"{{ l | join(', ') }}{{ ', '.join(l) }}", "[p], [qp], [q]"},
		{"{{ l }}", "[['p'], ['q']]"},
		{"{{ d | tojson }}", `{["k"]: ["v"]}`},
		{"{{ 'é<' | tojson }}", `"é<"`},
		{"{{ '%s-%d' % (b, 3) }}{{ '%5s' | format('q') }}", "[x,y]-3    q"},
		{"{{ '{}:{k:>3}'.format(b, k=l[0]) }}", "[x,y]:  [p]"},
		{"{{ b * 2 }}{{ 'z' * 2 }}", "[x,yx,y]zz"},
		{"{{ a | indent(2, true) }}", "  [ Abc]\n"},
		{"{% set x %}<{{ b }}>{% endset %}{{ x }}", "<[x,y]>"},
		{"{% macro m(v) %}<{{ v }}>{% endmacro %}{{ m(b) }}", "<[x,y]>"},
		{"{% filter upper %}a{{ b }}{% endfilter %}", "A[X,Y]"},
		{"{% for c in b %}{{ c }}.{% endfor %}", "[x].[,].[y]."},
		{"{% for k, v in d.items() %}{{ k }}={{ v }}{% endfor %}", "[k]=[v]"},
		{"{% if b == 'x,y' %}{{ 'x,y' }}{% endif %}", "x,y"},
		{"{{ b | length }}{{ b | int }}", "30"},
		{"{{ b | e }}{{ '<' | e }}", "[x,y]&lt;"},
		{"{{ b.partition(',')[2] }}{{ b.removeprefix('x') }}", "[y,y]"},
		{"{{ b.center(5, '*') }}{{ l[0].zfill(2) }}", "*[x,y]*0[p]"},
		{"{{ b | truncate(3, true, '') }}{{ (b ~ b ~ b) | truncate(5, true, '~', 0) }}", "[x,yx,yx]~"},
		{"{% generation %}<{{ b }}>{% endgeneration %}", "{<[x,y]>}"},
		{"a{% generation %}{% endgeneration %}b", "ab"},
		{"{% generation %}a{% generation %}b{% endgeneration %}{% endgeneration %}c", "{ab}c"},
		{"{% set x %}{% generation %} {{ b }}{% endgeneration %}{% endset %}{{ x | trim }}.{{ x | length }}", "{[x,y]}.4"},
		{"{% macro m() %}{% generation %}{{ caller() }}{% endgeneration %}{% endmacro %}{% call m() %}q{% endcall %}", "{q}"},
	}
	for _, c := range cases {
		s, err := render(t, c.template, vars)
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
			continue
		}
		checkMarks(t, s)
		if got := bracketed(s); got != c.want {
			t.Errorf("%s:\n got  %q\n want %q", c.template, got, c.want)
		}
	}
}

// bracketed shows marks as [data] and {generation}, neighbours joined.
func bracketed(s Str) string {
	data, generation := make([]bool, len(s.Text)+1), make([]bool, len(s.Text)+1)
	for _, m := range s.marks {
		for i := m.Start; i < m.End; i++ {
			if m.Origin == Generation {
				generation[i] = true
			} else {
				data[i] = true
			}
		}
	}
	var out strings.Builder
	for i := 0; i <= len(s.Text); i++ {
		wasData, wasGeneration := i > 0 && data[i-1], i > 0 && generation[i-1]
		if wasData && !data[i] {
			out.WriteByte(']')
		}
		if wasGeneration && !generation[i] {
			out.WriteByte('}')
		}
		if !wasGeneration && generation[i] {
			out.WriteByte('{')
		}
		if !wasData && data[i] {
			out.WriteByte('[')
		}
		if i < len(s.Text) {
			out.WriteByte(s.Text[i])
		}
	}
	return out.String()
}

func TestOrigins(t *testing.T) {
	vars := NewDict()
	vars.Set("a", DataString("aa", 0))
	vars.Set("b", DataString("bb", 3))
	tmpl, err := Parse("t", "{{ a ~ b ~ a ~ a }}")
	if err != nil {
		t.Fatal(err)
	}
	s, err := tmpl.Render(vars, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []Mark{{0, 2, 0}, {2, 4, 3}, {4, 8, 0}}
	if fmt.Sprint(s.Marks()) != fmt.Sprint(want) {
		t.Errorf("marks %v, want %v", s.Marks(), want)
	}
}

// Hostile templates must fail soon, with an error that names a limit, and in little memory.
func TestLimits(t *testing.T) {
	deep := func(open, end string, n int) string { return strings.Repeat(open, n) + "1" + strings.Repeat(end, n) }
	cases := map[string]string{
		"range":              "{% for i in range(10**9) %}{% endfor %}",
		"nested loops":       "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
		"macro recursion":    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
		"wide recursion":     "{% macro m(n) %}{{ m(n+1) if n < 60 }}{{ m(n+1) if n < 60 }}{% endmacro %}{{ m(0) }}",
		"doubling a string":  "{% set ns = namespace(s='x') %}{% for i in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
		"doubling by format": "{% set ns = namespace(s='x') %}{% for i in range(64) %}{% set ns.s = '%s%s' % (ns.s, ns.s) %}{% endfor %}",
		"doubling a list":    "{% set ns = namespace(s=[1]) %}{% for i in range(64) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
		"doubling a repr":    "{% set ns = namespace(s=[1]) %}{% for i in range(64) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
		"doubling a tojson":  "{% set ns = namespace(s=[1]) %}{% for i in range(64) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s | tojson }}",
		"doubling equality":  "{% set ns = namespace(s=[1], t=[1]) %}{% for i in range(64) %}{% set ns.s = [ns.s, ns.s] %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.s == ns.t }}",
		"repetition":         "{{ 'abc' * 10**9 }}",
		"list repetition":    "{{ [1, 2] * 10**9 }}",
		"width":              "{{ '%999999999s' % 1 }}",
		"format width":       "{{ '{:999999999}'.format(1) }}",
		"center":             "{{ 'a'.center(10**10) }}",
		"indent":             "{{ 'a\nb' | indent(10**10) }}",
		"integers":           "{{ 9 ** (9 ** 9) }}",
		"tabs":               "{{ ('\t' * 10**6).expandtabs(1000) }}",
		"batch":              "{{ [1] | batch(10**12, 0) | list }}",
		"slice":              "{{ [1] | slice(10**12) | list }}",
		"replace":            "{{ ('a' * 10**6) | replace('', 'b' * 10**6) }}",
		"join":               "{{ range(99999) | join('b' * 10**6) }}",
		"endless output":     "{% for i in range(99999) %}{{ 'x' * 10**5 }}{% endfor %}",
		"iterators":          "{% set ns = namespace(g=[1]) %}{% for i in range(99999) %}{% set ns.g = ns.g | map('string') %}{% endfor %}{{ ns.g | list }}",
		"cyclic namespace":   "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
		"recursive loop":     "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
		"parentheses":        "{{ " + deep("(", ")", 100_000) + " }}",
		"brackets":           "{{ " + deep("[", "]", 100_000) + " }}",
		"not":                "{{ " + strings.Repeat("not ", 100_000) + "1 }}",
		"minus":              "{{ " + strings.Repeat("- ", 100_000) + "1 }}",
		"plus":               "{{ 1" + strings.Repeat("+1", 100_000) + " }}",
		"attributes":         "{{ a" + strings.Repeat(".b", 100_000) + " }}",
		"calls":              "{{ a" + strings.Repeat("()", 100_000) + " }}",
		"filters":            "{{ 1" + strings.Repeat("|abs", 100_000) + " }}",
		"conditions":         "{{ " + strings.Repeat("1 if 0 else ", 100_000) + "1 }}",
		"blocks":             strings.Repeat("{% if 1 %}", 100_000),
		"large template":     strings.Repeat("x", maxSource+1),
	}
	for name, template := range cases {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			limits := Limits{Steps: 300_000, Output: 4 << 20}
			if name == "nested loops" {
				limits = Limits{} // the defaults must do too
			}
			tmpl, err := Parse("test", template)
			if err == nil {
				_, err = tmpl.Render(NewDict(), Options{Limits: limits})
			}
			if err == nil {
				t.Fatal("no error")
			}
			if len(err.Error()) > 300 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			// No measure of speed: without its limit each of these would take hours or all memory.
			if took := time.Since(start); took > time.Minute {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestErrorsNameTheLine(t *testing.T) {
	cases := []struct {
		template string
		line     int
		contains string
	}{
		{"a\nb\n{% if x %}\nc", 4, "'if'"},
		{"a\n{{ 1 +\n }}", 3, "expression"},
		{"a\n\n{{ 'x }}", 3, "string without an end"},
		{"a\n{% foo %}", 2, "unknown tag 'foo'"},
		{"{# x\n\n", 1, "comment"},
		{"a\n{% raw %}\n", 2, "raw"},
		{"\n{% for x in y %}\n{% endif %}", 3, "endif"},
		{"\n\n{{ x.y }}", 3, "'x' is undefined"},
		{"\n{% for i in [1] %}\n{{ i\n + 'a' }}{% endfor %}", 4, "unsupported operand"},
		{"{% macro m() %}\n{{ 1/0 }}{% endmacro %}\n{{ m() }}", 2, "division by zero"},
		{"\n{{ raise_exception('no ' ~ 'way') }}", 2, "no way"},
		{"\n{% if 1 < 'a' %}{% endif %}", 2, "not supported"},
		{"\n{{ 1 | nope }}", 2, "nope"},
		{"\n{{ 1 is nope }}", 2, "nope"},
		{"\n{% set x.y = 1 %}", 2, "namespace"},
		{"\n{% set a, b = [1] %}", 2, "unpack"},
		{"\n{{ [].append(1) }}", 2, "unsafe"},
		{"\n{{ {}.update({}) }}", 2, "unsafe"},
		{"\n{{ ''.__class__.__mro__ }}", 2, "unsafe"},
		{"\n{{ '{0.__class__.x}'.format(1) }}", 2, "unsafe"},
		{"\n{{ [] | attr('__class__') | attr('x') }}", 2, "unsafe"},
		{"\n{{ {}['__class__']['x'] }}", 2, "unsafe"},
		{"\n{% macro m() %}{% endmacro %}{{ m.__globals__.os }}", 2, "unsafe"},
		{"\n{{ cycler.__init__.__globals__ }}", 2, "unsafe"},
		{"\n{{ range.__self__.x }}", 2, "unsafe"},
		{"\n{{ ().__class__.__base__.__subclasses__() }}", 2, "unsafe"},
		{"\n{{ namespace().__dict__.x }}", 2, "unsafe"},
		{"\n{% for x in [1] %}{{ loop.__class__.x }}{% endfor %}", 2, "unsafe"},
		{"\n{{ {}.items.__func__() }}", 2, "unsafe"},
		{"\n{{ ['a'] | map(attribute='__class__.x') | list }}", 2, "unsafe"},
		{"\n{{ '%(a.__class__)s' % {} }}", 2, "a.__class__"},
		{"\n{{ self.x }}", 2, "'self' is undefined"},
		{"\n{{ lipsum.__globals__ }}", 2, "'lipsum' is undefined"},
		{"\n{{ loop.cycle }}", 2, "'loop' is undefined"},
		{"\n{{ messages.append }}{{ [].append(1) }}", 2, "'messages' is undefined"},
		{"\n{{ [].sort() }}", 2, "unsafe"},
		{"\n{{ {}.setdefault('a', 1) }}", 2, "unsafe"},
		{"\n{% include '/etc/passwd' %}", 2, "include"},
		{"\n{% import 'os' as os %}", 2, "import"},
	}
	for _, c := range cases {
		_, err := render(t, c.template, `{}`)
		e, ok := err.(*Error)
		if !ok {
			t.Errorf("%q: got error %v of type %T", c.template, err, err)
			continue
		}
		if e.Template != "test" || e.Line != c.line || !strings.Contains(e.Msg, c.contains) {
			t.Errorf("%q: got %v, want line %d and %q", c.template, err, c.line, c.contains)
		}
		if raised := strings.Contains(c.template, "raise_exception"); e.Raised != raised {
			t.Errorf("%q: Raised is %t", c.template, e.Raised)
		}
	}
}

// Rendering leaves no trace in the template or the variables: the same input gives the same text, also concurrently.
func TestConcurrentRenderings(t *testing.T) {
	r := readReference(t)
	c := r.Cases[len(r.Cases)-1]
	tmpl, err := Parse("t", c.Template)
	if err != nil {
		t.Fatal(err)
	}
	vars := parseVars(t, string(c.Vars))
	results := make(chan string)
	for range 8 {
		go func() {
			s, err := tmpl.Render(vars, Options{Now: referenceNow})
			results <- fmt.Sprint(s.Text, err)
		}()
	}
	want := fmt.Sprint(c.Text, nil)
	for range 8 {
		if got := <-results; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
