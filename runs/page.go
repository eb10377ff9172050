package runs

import (
	_ "embed"
	"fmt"
	"html/template"
	"strings"
	"unicode/utf8"
)

//go:embed page.html.tmpl
var pageParts string

//go:embed page.css
var pageStyle string

// PageTemplate parses a page of the make that a run's report has: one file, without a
// script or a network, light and dark. It panics if text is no template. Beside what html/template knows,
// the text may use
//
//	{{template "head"}}     of every page's head, what must be the same: policy, screen, colors
//	{{style}}               the style sheet that pages share, and style behind it
//	{{template "panel" .}}  a Panel
//	{{visible TEXT}}        untrusted text, see Visible
//	{{figure NUMBER}}       see Figure
//
// All text that a page shows is untrusted. html/template escapes it, visible does the rest.
func PageTemplate(text, style string) *template.Template {
	t := template.New("page").Funcs(template.FuncMap{
		"visible": Visible,
		"figure":  Figure,
		"style":   func() template.CSS { return template.CSS(pageStyle + style) },
	})
	template.Must(t.New("parts").Parse(pageParts))
	return template.Must(t.Parse(text))
}

// Grouped writes 40000 as 40,000; n is not negative.
func Grouped(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Visible makes control characters and direction overrides, with which hostile
// text hides or reorders what is around it, stand for themselves. html/template
// does the escaping; this is about what is left.
func Visible(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r < ' ':
			return 0x2400 + r // the control pictures
		case r == 0x7f:
			return 0x2421
		case r >= 0x80 && r < 0xa0, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f, r == 0x061c:
			return utf8.RuneError
		}
		return r
	}, s)
}
