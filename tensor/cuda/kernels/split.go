package kernels

import "bytes"

// Split cuts PTX into one module a kernel, by the kernel's name: what stands outside of
// all kernels (the head, constants, functions that kernels call) and that one. A driver's
// compiler takes as long as what it is given is, whichever kernels are wanted.
func Split(ptx []byte) map[string][]byte {
	type piece struct {
		kernel string // "" of what is common
		text   []byte
	}
	pieces := []piece{{}}
	for line := range bytes.Lines(ptx) {
		last := &pieces[len(pieces)-1]
		if rest, ok := bytes.CutPrefix(line, []byte(".visible .entry ")); ok {
			name, _, _ := bytes.Cut(rest, []byte("("))
			pieces = append(pieces, piece{kernel: string(name)})
			last = &pieces[len(pieces)-1]
		}
		last.text = append(last.text, line...)
		if last.kernel != "" && string(line) == "}\n" {
			pieces = append(pieces, piece{})
		}
	}
	out := map[string][]byte{}
	for _, k := range pieces {
		if k.kernel == "" {
			continue
		}
		var text []byte
		for _, p := range pieces {
			if p.kernel == "" || p.kernel == k.kernel {
				text = append(text, p.text...)
			}
		}
		out[k.kernel] = text
	}
	return out
}
