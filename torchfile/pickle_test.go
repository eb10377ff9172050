package torchfile

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Pickles, as their instructions, that are refused, and what the error says.
func TestPickleRefuses(t *testing.T) {
	for name, c := range map[string]struct{ code, want string }{
		"empty":               {"", "too early"},
		"no stop":             {"\x80\x02}", "too early"},
		"nothing":             {"\x80\x02.", "stack"},
		"protocol 9":          {"\x80\x09}.", "protocol 9"},
		"unknown":             {"\x80\x02\xff.", "0xff"},
		"text instruction":    {"I5\n.", "0x49"},
		"INST":                {"(ios\nsystem\n.", "0x69"},
		"OBJ":                 {"(cos\nsystem\no.", "os.system"},
		"string too long":     {"X\xff\xff\xff\xff.", "4294967295"},
		"string beyond end":   {"X\x05\x00\x00\x00ab.", "too early"},
		"string 2^64-1":       {"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "18446744073709551615"},
		"frame beyond end":    {"\x80\x04\x95\xff\x00\x00\x00\x00\x00\x00\x00.", "too early"},
		"pop of nothing":      {"0.", "stack"},
		"pop below a mark":    {"K\x01(\x85.", "stack"},
		"no mark":             {"t.", "no mark"},
		"memo never set":      {"h\x05.", "memo"},
		"append to a dict":    {"}K\x01a.", "a dict"},
		"items of a list":     {"]K\x01K\x02s.", "a list"},
		"odd items":           {"}(K\x01u.", "without a value"},
		"add to a list":       {"](K\x01\x90.", "a list"},
		"global":              {"cos\nsystem\n.", "os.system"},
		"builtins.eval":       {"c__builtin__\neval\n.", "builtins.eval"},
		"stack global":        {"\x8c\x02os\x8c\x06system\x93.", "os.system"},
		"stack global of 5":   {"K\x05K\x06\x93.", "no text"},
		"getattr chain":       {"ctorch\nload\n.", "torch.load"},
		"dotted name":         {"ctorch\n_utils.os.system\n.", "torch._utils.os.system"},
		"name without end":    {"cos", "no end"},
		"call of a number":    {"K\x05)R.", "calls the number 5"},
		"call with a number":  {"ccollections\nOrderedDict\nK\x05R.", "instead of arguments"},
		"call of a dtype":     {"ctorch\nfloat32\n)R.", "torch.float32"},
		"call of a class":     {"ctorch\nTensor\n)\x81.", "torch.Tensor"},
		"keyword arguments":   {"ccollections\nOrderedDict\n)}K\x01K\x02s\x92.", "named arguments"},
		"build of a list":     {"]}b.", "a list"},
		"build of a global":   {"ccollections\nOrderedDict\n}b.", "collections.OrderedDict"},
		"persistent":          {"X\x01\x00\x00\x00aQ.", "a string"},
		"tensor of nothing":   {"ctorch._utils\n_rebuild_tensor_v2\n)R.", "_rebuild_tensor_v2: 0 arguments"},
		"tensor of numbers":   {"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02K\x03K\x04tR.", "expected a storage"},
		"parameter of a dict": {"ctorch._utils\n_rebuild_parameter\n}\x85R.", "expected a tensor"},
		"rebuild of rebuild":  {"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nctorch\nTensor\n)tR.", "_rebuild_from_type_v2"},
		"pairs of one":        {"ccollections\nOrderedDict\n](K\x01\x85e\x85R.", "a tuple"},
	} {
		t.Run(name, func(t *testing.T) {
			v, _, err := runPickle([]byte(c.code), nil, nil)
			if err == nil {
				t.Fatalf("made %s", kindOf(v))
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "byte ") {
				t.Errorf("error %q does not say %q and where", err, c.want)
			}
		})
	}
}

// Values that a pickle makes.
func TestPickleValues(t *testing.T) {
	for code, want := range map[string]string{
		"J\xff\xff\xff\xff.": "the number -1",
		"M\xff\xff.":         "the number 65535",
		"\x8a\x00.":          "the number 0",
		"\x8a\x01\xff.":      "the number -1",
		"\x8a\x02\xff\x00.":  "the number 255",
		"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80.":     "the number -9223372036854775808",
		"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00.": "bytes",
		"\x8b\x02\x00\x00\x00\xfe\xff.":                 "the number -2",
		"(0K\x01.":                                      "the number 1",
		"K\x01(K\x021.":                                 "the number 1",
		"K\x012\x86.":                                   "a tuple",
		"(K\x01K\x02d.":                                 "a dict",
		"(l.":                                           "a list",
		"c__builtin__\nset\n]\x85R.":                    "a set",
		"c_codecs\nencode\nX\x02\x00\x00\x00\xc3\xbfX\x06\x00\x00\x00latin1\x86R.": "bytes",
		"ctorch\ndevice\nX\x03\x00\x00\x00cpu\x85R.":                               "a device",
		"ctorch\nSize\nK\x01K\x02\x86\x85R.":                                       "a tuple",
	} {
		v, n, err := runPickle([]byte(code+"rest"), nil, nil)
		if err != nil || kindOf(v) != want || n != len(code) {
			t.Errorf("%q: %s, %d bytes, %v; want %s, %d", code, kindOf(v), n, err, want, len(code))
		}
	}
}

// Views that leave their storage are refused, however the numbers are chosen.
func TestViewsAreBounded(t *testing.T) {
	at := func(shape, stride string, offset string) string {
		return "ctorch._utils\n_rebuild_tensor_v2\n(\x8c\x01sQ" + offset + shape + stride + "tR."
	}
	big := "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"
	for name, c := range map[string]struct{ code, want string }{
		"fits":               {at("K\x08\x85", "K\x01\x85", "K\x00"), ""},
		"one of eight":       {at(")", ")", "K\x07"), ""},
		"expanded":           {at("M\xff\xff\x85", "K\x00\x85", "K\x07"), ""},
		"nothing":            {at("K\x00K\x09\x86", "K\x09K\x01\x86", "K\x20"), ""},
		"one too many":       {at("K\x09\x85", "K\x01\x85", "K\x00"), "which has 8"},
		"offset":             {at(")", ")", "K\x08"), "which has 8"},
		"stride":             {at("K\x02\x85", "K\x08\x85", "K\x00"), "which has 8"},
		"stride 2^63-1":      {at("K\x03\x85", big+"\x85", "K\x05"), "64 bits"},
		"sum beyond 64 bits": {at("K\x02K\x02K\x02\x87", big+big+big+"\x87", "K\x05"), "64 bits"},
		"offset 2^63-1":      {at(")", ")", big), "which has 8"},
		"elements":           {at(big+big+"\x86", "K\x00K\x00\x86", "K\x00"), "too many elements"},
		"negative size":      {at("J\xff\xff\xff\xff\x85", "K\x01\x85", "K\x00"), "expected a size"},
		"negative stride":    {at("K\x02\x85", "J\xff\xff\xff\xff\x85", "K\x07"), "expected a size"},
		"negative offset":    {at("K\x02\x85", "K\x01\x85", "J\xff\xff\xff\xff"), "offset"},
		"strides missing":    {at("K\x02\x85", ")", "K\x00"), "strides"},
		"shape of a list":    {at("]", ")", "K\x00"), "expected a tuple"},
		"65 dimensions":      {at("("+strings.Repeat("K\x01", 65)+"t", "("+strings.Repeat("K\x01", 65)+"t", "K\x00"), "65 dimensions"},
	} {
		t.Run(name, func(t *testing.T) {
			var tensors []*tensor
			code := strings.Replace(c.code, "\x8c\x01sQ", "\x8c\x01s\x85Q", 1)
			_, _, err := runPickle([]byte(code), func(tuple) (any, error) { return &storage{key: "s", dtype: "F32", bytes: make([]byte, 32)}, nil }, &tensors)
			for _, x := range tensors {
				if err == nil {
					err = x.settle()
				}
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
			if err == nil && len(tensors) != 1 {
				t.Fatalf("%d tensors", len(tensors))
			}
		})
	}
}

// What a pickle can make others pay for is bounded.
func TestPickleBombs(t *testing.T) {
	many := func(s string) string { return strings.Repeat(s, maxValues+2) }
	for name, code := range map[string]string{
		"values":     "\x80\x02" + many("N"),
		"marks":      "\x80\x02" + many("("),
		"dicts":      "\x80\x02" + many("}"),
		"memo":       "\x80\x04N" + many("\x94"),
		"duplicates": "\x80\x02}" + many("2"),
		// A long list handed to call after call.
		"copies": "\x80\x02ccollections\nOrderedDict\nq\x00](" + strings.Repeat("NN\x86", 1000) + "eq\x01" + strings.Repeat("0h\x00h\x01\x85R", 10000),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _, err := runPickle([]byte(code), nil, nil)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Fatal("ran to its end")
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 1<<30 {
				t.Errorf("allocated %d MiB before %v", used>>20, err)
			}
		})
	}
	t.Run("laughs", func(t *testing.T) { // a list of two of a list of two …, 2^50 leaves
		code := "\x80\x02]q\x00"
		for i := range 50 {
			code += fmt.Sprintf("](h%ch%ceq%c", i, i, i+1)
		}
		v, _, err := runPickle([]byte(code+"."), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stateDict(v); err == nil {
			t.Error("a list passed as a state dict")
		}
	})
}

// Whatever the bytes, Open's work ends in an error or in tensors whose every element can be read,
// and takes memory in proportion to the bytes.
func FuzzRead(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.*"))
	if err != nil || len(files) < 20 {
		f.Fatalf("%d seeds, %v", len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if len(b) < 8192 && filepath.Ext(file) != ".json" {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		file, err := read(b)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20+2000*uint64(len(b)) {
			t.Fatalf("%d bytes allocated for an input of %d", used, len(b))
		}
		if err != nil {
			return
		}
		for _, name := range file.Names() {
			x, ok := file.Tensor(name)
			if !ok {
				t.Fatalf("%q is listed, but not there", name)
			}
			n := x.Len()
			dst := make([]float32, min(n, 1000))
			for _, from := range []int{0, n / 2, n - len(dst)} {
				if err := x.Read(dst[:min(len(dst), n-from)], from); err != nil {
					t.Fatal(err)
				}
			}
			x.Contiguous()
		}
	})
}
