// Package recipe reads YAML recipes into Go structs that say, in their field
// tags, what a key means. From the same tags it checks values, fills defaults,
// explains every key, and writes a resolved recipe. It knows nothing of what
// the recipes are for.
//
//	type Train struct {
//		Steps int      `yaml:"steps" default:"1000" min:"1" help:"Optimizer steps"`
//		LR    float64  `yaml:"lr" default:"2e-5" min:">0" help:"Peak learning rate"`
//		Dtype string   `yaml:"dtype" default:"f32" oneof:"f32|bf16" help:"..."`
//		Limit Size     `yaml:"limit" default:"8GiB"`
//		Data  []Source `yaml:"data" required:"true"`
//		Lora  *Lora    `yaml:"lora" help:"Absent: all parameters are trained"`
//	}
//
// The tags:
//
//	yaml       the key; without it the field's name in snake_case; "-" leaves the
//	           field out; ",inline" lifts an embedded struct's keys
//	default    the value of an absent key, as YAML; without it the zero value
//	min, max   bounds of a number, size or duration, and of each such item of a
//	           list or map; ">0" and "<1" leave the bound itself out
//	oneof      the strings allowed, separated by |
//	also       other words for some of them, "true=full|false=none": those of older recipes
//	required   "true": the key must be given, and not be empty
//	shorthand  "true" on one field of a struct: a plain value where the struct
//	           is expected sets this field
//	help       a sentence for Explain
//
// Kinds: bool, integers, floats, string, time.Duration ("90s", "2h", "1d"),
// Size ("8GiB"), structs, lists (a single value stands for a list of one), maps
// with string keys, and pointers, which are nil where the key is absent or null.
//
// The syntax is YAML 1.2 (https://yaml.org/spec/1.2.2/) as goccy/go-yaml parses
// it, one document, with anchors, aliases and merge keys, without tags.
package recipe

import (
	"fmt"
	"reflect"
	"strings"
)

// Decode reads the recipe text into the struct that into points to. Errors
// begin with name, usually the file's path, and the line. sets are overrides
// "a.b.c=value", applied in order, with the value read as YAML and checked as
// if it stood in the recipe; a number selects an item of a list
// ("data.0.weight=2", and the list's length appends).
//
// A field that into already holds a non-zero value for keeps it where the
// recipe has no such key: a caller's own default, before the tag's. A value
// equal to the default is accepted whatever the bounds say, so that "0 = off"
// works with min:"1", and a resolved recipe always decodes.
//
// Of several problems the first three are reported, one a line.
func Decode(text []byte, name string, sets []string, into any) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("recipe: Decode into %T, want a pointer to a struct", into))
	}
	s := schemaOf(v.Elem().Type())
	root, err := parse(text, name)
	if err != nil {
		return err
	}
	for _, set := range sets {
		if err := applySet(root, s, set); err != nil {
			return fmt.Errorf("--set %s: %w", shorten(set), err)
		}
	}
	d := &decoder{name: name, root: s}
	d.block(s, root, v.Elem(), "")
	return d.report()
}

// problems is how many errors are shown: with the line that counts the rest,
// four lines.
const problems = 3

func (d *decoder) report() error {
	if len(d.errs) == 0 {
		return nil
	}
	shown := d.errs
	if len(shown) > problems {
		shown = append(shown[:problems:problems], fmt.Sprintf("and %d more", len(d.errs)-problems))
	}
	return &Error{strings.Join(shown, "\n")}
}

// Error is what is wrong with a recipe: one line a problem, at most four.
type Error struct{ text string }

func (e *Error) Error() string { return e.text }
