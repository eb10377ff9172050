package kernels

import (
	"bytes"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	const head, after = ".version 8.4\n.target sm_80\n.func f;\n", ".func f\n{\nret;\n}\n"
	a, b := ".visible .entry a(\n)\n{\n{ // call\n}\nret;\n\t}\n}\n", ".visible .entry b()\n.maxntid 1, 1, 1\n{\nret;\n}\n"
	a = strings.Replace(a, "{ // call\n}\n", "\t{\n\t}\n", 1) // inner braces are indented
	got := Split([]byte(head + a + b + after))
	if len(got) != 2 || string(got["a"]) != head+a+after || string(got["b"]) != head+b+after {
		t.Errorf("%q", got)
	}
}

// TestSplitAll: of every family each kernel is found, whole, once, and nothing is lost.
func TestSplitAll(t *testing.T) {
	for output := range Sums() {
		family, arch, _ := strings.Cut(output, ".")
		ptx, err := PTX(family, arch)
		if err != nil {
			t.Fatal(err)
		}
		parts := Split(ptx)
		if n := bytes.Count(ptx, []byte(".entry ")); n != len(parts) || n == 0 {
			t.Errorf("%s: %d parts of %d kernels", output, len(parts), n)
		}
		whole, common := 0, -1
		for name, part := range parts {
			if bytes.Count(part, []byte(".entry ")) != 1 || !bytes.Contains(part, []byte(".entry "+name+"(")) || !bytes.HasPrefix(part, []byte(".version ")) {
				t.Errorf("%s.%s begins %.40q", output, name, part)
			}
			begin := bytes.Index(part, []byte(".visible .entry "))
			end := begin + bytes.Index(part[begin:], []byte("\n}\n")) + 3
			whole += end - begin
			if rest := len(part) - (end - begin); common < 0 {
				common = rest
			} else if rest != common {
				t.Errorf("%s.%s: %d bytes are common, of others %d", output, name, rest, common)
			}
		}
		if whole+common != len(ptx) {
			t.Errorf("%s: %d bytes of %d", output, whole+common, len(ptx))
		}
	}
}
