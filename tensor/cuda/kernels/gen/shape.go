package main

import (
	"fmt"
	"regexp"
	"strings"
)

// NVRTC orders some of its work by the addresses of its own memory. Most families
// compile to the same bytes each time; in a large kernel registers may be numbered
// otherwise, operands exchanged, or two loads made one. So a check compares what
// doesn't vary: kernels, their parameters, and how often each instruction occurs.

// shape is that of one kernel.
type shape struct {
	name, head   string         // head: parameters and bounds of the launch
	instructions map[string]int // by opcode; without moves
	total        int
}

var guard = regexp.MustCompile(`^@!?%p\d+\s+`)

// shapes reads PTX without comments.
func shapes(ptx []byte) []shape {
	var out []shape
	body := false
	for line := range strings.Lines(string(ptx)) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, ".visible .entry "); ok {
			name, _, _ := strings.Cut(rest, "(")
			out, body = append(out, shape{name: name, instructions: map[string]int{}}), false
		}
		if len(out) == 0 {
			continue
		}
		s := &out[len(out)-1]
		if line == "{" {
			body = true
		}
		if !body {
			s.head += line + "\n"
			continue
		}
		opcode, _, _ := strings.Cut(strings.ReplaceAll(guard.ReplaceAllString(line, ""), "\t", " "), " ")
		if opcode = strings.TrimSuffix(opcode, ";"); opcode == "" || opcode[0] < 'a' || opcode[0] > 'z' || strings.HasPrefix(opcode, "mov.") {
			continue // labels, declarations, moves
		}
		s.instructions[opcode]++
		s.total++
	}
	return out
}

// alike tells in what two compilations of the same sources differ more than NVRTC does
// with itself: 1 % of a kernel's instructions, or 8.
func alike(a, b []byte) error {
	x, y := shapes(a), shapes(b)
	if len(x) != len(y) {
		return fmt.Errorf("%d kernels, now %d", len(x), len(y))
	}
	for i := range x {
		if x[i].name != y[i].name || x[i].head != y[i].head {
			return fmt.Errorf("kernel %s, now %s, or its parameters or bounds differ", x[i].name, y[i].name)
		}
		differ := 0
		for opcode, n := range x[i].instructions {
			differ += max(0, n-y[i].instructions[opcode])
		}
		for opcode, n := range y[i].instructions {
			differ += max(0, n-x[i].instructions[opcode])
		}
		if differ > max(8, x[i].total/100) {
			return fmt.Errorf("kernel %s: %d of %d instructions differ", x[i].name, differ, x[i].total)
		}
	}
	return nil
}
