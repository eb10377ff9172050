// Package jinja interprets the Jinja templates that Hugging Face models carry as chat templates.
//
// It implements the language of Jinja 3.1 (https://jinja.palletsprojects.com/en/stable/templates/) as transformers
// configures it: the immutable sandbox, trim_blocks and lstrip_blocks on, autoescape off, loop controls,
// raise_exception, strftime_now, tojson as Python's json.dumps, and {% generation %} blocks. Values behave as
// Python's: dicts keep their order, ints and floats are apart, strings are sequences of code points.
// Template inheritance and includes don't exist here, for a chat template has no loader.
//
// Two things go beyond Jinja:
//
//   - Provenance. Strings remember which of their bytes came from data, and from which message (Mark). The marks
//     survive slicing, joining, stripping, replacing and printing, so that the rendered text says where each byte is
//     from. Text inside {% generation %} is marked in the same way.
//   - Limits. Templates come with downloaded models and are not trusted: steps, recursion and output are bounded,
//     and a template sees nothing but the variables it is given.
package jinja

import (
	"errors"
	"fmt"
	"time"
)

// Limits bound what a rendering may use. A zero field stands for its default.
type Limits struct {
	Steps  int // evaluated expressions and statements, plus 1 for 16 bytes or 1 element copied; default 5 million, seconds of one core
	Depth  int // nesting of expressions, macro calls and recursive loops; default 1500
	Output int // bytes of any string, the rendered text included; default 64 MiB
}

func (l Limits) withDefaults() Limits {
	if l.Steps <= 0 {
		l.Steps = 5_000_000
	}
	if l.Depth <= 0 {
		l.Depth = 1500
	}
	if l.Output <= 0 {
		l.Output = 64 << 20
	}
	return l
}

// Options are what a rendering needs besides its variables.
type Options struct {
	Limits Limits
	Now    time.Time // the time that strftime_now formats; the zero value stands for the current time
}

// Template is a parsed template. It is immutable, and safe for concurrent use.
type Template struct {
	name       string
	body       []stmt
	generation bool
}

// Name is the name given to Parse; errors carry it.
func (t *Template) Name() string { return t.name }

// HasGeneration tells whether the template has a {% generation %} block.
func (t *Template) HasGeneration() bool { return t.generation }

// Render runs the template on vars, whose keys must be strings, and returns the text with its marks.
func (t *Template) Render(vars *Dict, opt Options) (Str, error) {
	now := opt.Now
	if now.IsZero() {
		now = time.Now()
	}
	in := &interp{limits: opt.Limits.withDefaults(), now: now}
	in.steps = in.limits.Steps
	in.out = &builder{limit: in.limits.Output}
	top := &scope{}
	if vars != nil {
		for i := range vars.entries {
			if name, ok := vars.entries[i].key.(Str); ok {
				top.set(name.Text, vars.entries[i].value)
			}
		}
	}
	if err := execAll(in, &scope{parent: top}, t.body); err != nil {
		return Str{}, t.locate(err)
	}
	return in.out.str(), nil
}

func (t *Template) locate(err error) error {
	var e *Error
	if errors.As(err, &e) {
		located := *e
		located.Template = t.name
		return &located
	}
	return err
}

// Error is a syntax error or a failed rendering.
type Error struct {
	Template string // the template's name
	Line     int    // counted from 1; 0 if unknown
	Msg      string
	Raised   bool // the template itself called raise_exception(Msg)
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("template %s: %s", e.Template, e.Msg)
	}
	return fmt.Sprintf("template %s, line %d: %s", e.Template, e.Line, e.Msg)
}

func errorf(format string, args ...any) error {
	return &Error{Msg: fmt.Sprintf(format, args...)}
}

// at gives err a line where it has none yet, so that the innermost located node wins.
func at(err error, line int) error {
	if e, ok := err.(*Error); ok && e.Line == 0 {
		e.Line = line
	}
	return err
}

// interp is the state of one rendering.
type interp struct {
	limits Limits
	steps  int // what is left
	depth  int
	now    time.Time
	out    *builder
}

func (in *interp) charge(n int) error {
	in.steps -= n
	if in.steps < 0 {
		return errorf("stopped after %d steps: the template loops for too long", in.limits.Steps)
	}
	return nil
}

// chargeBytes accounts for copying or scanning n bytes.
func (in *interp) chargeBytes(n int) error {
	if n > in.limits.Output {
		return errorf("a string of %d bytes exceeds the limit of %d", n, in.limits.Output)
	}
	return in.charge(n/16 + 1)
}

// enter and leave bracket every recursion of the interpreter.
func (in *interp) enter() error {
	in.depth++
	if in.depth > in.limits.Depth {
		return errorf("nested deeper than %d levels", in.limits.Depth)
	}
	return in.charge(1)
}

func (in *interp) leave() { in.depth-- }

// capture runs f with the output redirected, and returns what it printed.
func (in *interp) capture(f func() error) (Str, error) {
	saved := in.out
	in.out = &builder{limit: in.limits.Output}
	err := f()
	s := in.out.str()
	in.out = saved
	if err != nil {
		return Str{}, err
	}
	return s, in.chargeBytes(len(s.Text))
}

// scope is a frame of variables. Frames are small, so a list beats a map.
type scope struct {
	names  []string
	values []Value
	parent *scope
}

func (s *scope) set(name string, v Value) {
	for i, n := range s.names {
		if n == name {
			s.values[i] = v
			return
		}
	}
	s.names = append(s.names, name)
	s.values = append(s.values, v)
}

func (s *scope) lookup(name string) (Value, bool) {
	for ; s != nil; s = s.parent {
		for i, n := range s.names {
			if n == name {
				return s.values[i], true
			}
		}
	}
	v, ok := globals[name]
	return v, ok
}
