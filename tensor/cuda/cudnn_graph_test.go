package cuda

import (
	"encoding/json"
	flags "flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"ringtail/tensor"
)

var updateGraphs = flags.Bool("update-cudnn", false, "rewrite testdata/cudnn_graphs.txt from ../shared/reference/cudnn_sdpa_graphs.json (RINGTAIL_SHARED)")

// graphCases are the graphs that cuDNN 9.19 logged for PyTorch, by their names there.
var graphCases = []struct {
	name string
	s    sdpa
}{
	{"causal", sdpa{dtype: tensor.BF16, sequences: 2, longest: 512, heads: 4, kvHeads: 4, headDim: 128,
		q: 512, kv: 512, o: 512, dO: 512, dQ: 512, dKV: 512, statsSequence: 2048, statsHead: 512, statsToken: 1}},
	{"causal_gqa", sdpa{dtype: tensor.BF16, sequences: 2, longest: 512, heads: 8, kvHeads: 2, headDim: 128,
		q: 1024, kv: 256, o: 1024, dO: 1024, dQ: 1024, dKV: 256, statsSequence: 4096, statsHead: 512, statsToken: 1}},
	{"causal_packed", sdpa{packed: true, dtype: tensor.BF16, sequences: 3, longest: 300, heads: 4, kvHeads: 4, headDim: 128,
		q: 512, kv: 512, o: 512, dO: 512, dQ: 512, dKV: 512, statsSequence: 1200, statsHead: 1, statsToken: 4}},
}

// TestCuDNNGraphs builds the graphs that cuDNN logged, and finds them the same but for
// names, batch strides of packed tensors (cuDNN doesn't read them) and, in the packed
// backward pass, two accumulators: laid out by tokens here, by [sequences, longest] there.
func TestCuDNNGraphs(t *testing.T) {
	want, err := os.ReadFile("testdata/cudnn_graphs.txt")
	if err != nil && !*updateGraphs {
		t.Fatal(err)
	}
	logged, haveLog := loggedGraphs(t)
	var all strings.Builder
	sections := map[string]string{}
	for _, part := range strings.Split(string(want), "# ")[1:] {
		name, body, _ := strings.Cut(part, "\n")
		sections[name] = body
	}
	for _, c := range graphCases {
		for _, pass := range []string{"forward", "backward"} {
			name := c.name + " " + pass
			s := c.s
			s.backward = pass == "backward"
			if c.s.packed && s.backward {
				s.longest = 128 // as was logged
			}
			g := newSDPA(s)
			for _, x := range g.tensors {
				if s.packed && (x.role == roleSum || x.role == roleDQSum) {
					x.ragged = nil
					d := x.dims
					x.strides = [4]int64{d[1] * d[2] * d[3], d[2] * d[3], d[3], 1}
				}
			}
			if haveLog {
				if *updateGraphs {
					fmt.Fprintf(&all, "# %s\n%s", name, logged[name])
					sections[name] = logged[name]
				} else if logged[name] != sections[name] {
					t.Errorf("%s: testdata differs from the log (go test ./tensor/cuda -run CuDNNGraphs -update-cudnn)", name)
				}
			}
			if got := writeGraph(g); got != sections[name] {
				t.Errorf("%s: differs\n%s", name, diff(got, sections[name]))
			}
		}
	}
	if *updateGraphs && haveLog {
		if err := os.WriteFile("testdata/cudnn_graphs.txt", []byte(all.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// diff shows the lines that differ.
func diff(a, b string) string {
	var out strings.Builder
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range max(len(x), len(y)) {
		var p, q string
		if i < len(x) {
			p = x[i]
		}
		if i < len(y) {
			q = y[i]
		}
		if p != q {
			fmt.Fprintf(&out, "%d: built  %s\n%d: logged %s\n", i, p, i, q)
		}
	}
	return out.String()
}

// graphText writes a graph with tensors numbered as operations name them.
type graphText struct {
	numbers map[any]int
	ops     strings.Builder
	tensors strings.Builder
}

// write adds an operation: its name, and its tensors, each with its own text once.
func (g *graphText) write(name string, ports []string, number func(port string) int) {
	fmt.Fprint(&g.ops, name)
	for _, p := range ports {
		if n := number(p); n > 0 {
			fmt.Fprintf(&g.ops, " %s=%d", p, n)
		}
	}
	fmt.Fprintln(&g.ops)
}

func (g *graphText) number(key any, describe func() string) int {
	if n := g.numbers[key]; n > 0 {
		return n
	}
	n := len(g.numbers) + 1
	g.numbers[key] = n
	fmt.Fprintf(&g.tensors, "%d %s\n", n, describe())
	return n
}

func tensorText(typ string, dims, strides []int64, kind string, ragged int) string {
	s := make([]string, len(strides))
	for i, v := range strides {
		s[i] = strconv.FormatInt(v, 10)
	}
	if ragged > 0 {
		s[0] = "*"
	}
	out := fmt.Sprintf("%s %v [%s] %s", typ, dims, strings.Join(s, " "), kind)
	if ragged > 0 {
		out += fmt.Sprintf(" ragged=%d", ragged)
	}
	return out
}

var ports = []string{"x", "b", "t", "y", "m", "n", "k"}

var (
	typeNames = map[dnnType]string{dnnFloat: "FLOAT", dnnHalf: "HALF", dnnInt32: "INT32", dnnBF16: "BFLOAT16", dnnBoolean: "BOOLEAN"}
	modeNames = map[opMode]string{modeAdd: "ADD", modeMul: "MUL", modeDiv: "DIV", modeSub: "SUB", modeExp: "EXP", modeLog: "LOG", modeIdentity: "IDENTITY",
		modeGreater: "CMP_GT", modeAtLeast: "CMP_GE", modeLess: "CMP_LT", modeAnd: "LOGICAL_AND", modeIndex: "GEN_INDEX", modeSelect: "BINARY_SELECT"}
	reduceNames = map[opMode]string{reduceAdd: "ADD", reduceMax: "MAX"}
)

func writeGraph(g *dnnGraph) string {
	text := graphText{numbers: map[any]int{}}
	var number func(t *dnnTensor) int
	number = func(t *dnnTensor) int {
		if t == nil {
			return 0
		}
		ragged := number(t.ragged)
		kind := "memory"
		switch {
		case t.role == virtual:
			kind = "virtual"
		case t.role >= roleScale:
			kind = "value"
		}
		return text.number(t, func() string { return tensorText(typeNames[t.typ], t.dims[:], t.strides[:], kind, ragged) })
	}
	for _, o := range g.ops {
		name := map[opKind]string{opMatmul: "MATMUL", opPointwise: "POINTWISE " + modeNames[o.mode], opReduce: "REDUCTION " + reduceNames[o.mode], opReshape: "RESHAPE"}[o.kind]
		if o.kind != opReshape {
			name += " " + typeNames[o.math]
		}
		if o.mode == modeIndex {
			name += fmt.Sprintf(" axis=%d", o.axis)
		}
		text.write(name, ports, func(port string) int {
			return number(map[string]*dnnTensor{"x": o.x, "b": o.b, "t": o.t, "y": o.y, "m": o.m, "n": o.n, "k": o.k}[port])
		})
	}
	return text.ops.String() + text.tensors.String()
}

// loggedGraphs are the graphs of the shared reference, written likewise.
func loggedGraphs(t *testing.T) (map[string]string, bool) {
	shared := os.Getenv("RINGTAIL_SHARED")
	if shared == "" {
		return nil, false
	}
	raw, err := os.ReadFile(filepath.Join(shared, "reference", "cudnn_sdpa_graphs.json"))
	if err != nil {
		t.Log(err)
		return nil, false
	}
	type loggedTensor struct {
		Name, DataType       string
		Dim, Stride          []int64
		IsVirtual, IsByValue bool
		RaggedOffset         *loggedTensor
	}
	var all map[string]map[string]struct {
		Tensors    []loggedTensor
		Operations []struct {
			Operation, PointwiseMode, ReductionOp, MathPrec string
			Axis                                            int
			X, B, T, Y, MatA, MatB, MatC                    string
			MOverride, NOverride, KOverride                 string
		}
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for name, passes := range all {
		name, _, _ = strings.Cut(name, ":")
		for pass, g := range passes {
			text := graphText{numbers: map[any]int{}}
			tensors := map[string]loggedTensor{}
			for _, x := range g.Tensors {
				tensors[x.Name] = x
			}
			var number func(name string) int
			number = func(name string) int {
				if name == "" {
					return 0
				}
				x := tensors[name]
				ragged := 0
				if o := x.RaggedOffset; o != nil {
					ragged = text.number(o.Name, func() string {
						return tensorText(strings.TrimPrefix(o.DataType, "CUDNN_DATA_"), o.Dim, []int64{1, 1, 1, 1}, "memory", 0)
					})
				}
				kind := "memory"
				if x.IsVirtual {
					kind = "virtual"
				} else if x.IsByValue {
					kind = "value"
				}
				return text.number(name, func() string {
					return tensorText(strings.TrimPrefix(x.DataType, "CUDNN_DATA_"), x.Dim, x.Stride, kind, ragged)
				})
			}
			for _, o := range g.Operations {
				label := o.Operation
				if o.Operation == "POINTWISE" {
					label += " " + strings.TrimPrefix(o.PointwiseMode, "CUDNN_POINTWISE_")
				}
				if o.Operation == "REDUCTION" {
					label += " " + strings.TrimPrefix(o.ReductionOp, "CUDNN_REDUCE_TENSOR_")
				}
				if o.MathPrec != "" {
					label += " " + strings.TrimPrefix(o.MathPrec, "CUDNN_DATA_")
				}
				if o.PointwiseMode == "CUDNN_POINTWISE_GEN_INDEX" {
					label += fmt.Sprintf(" axis=%d", o.Axis)
				}
				named := map[string]string{"x": o.X + o.MatA, "b": o.B + o.MatB, "t": o.T, "y": o.Y + o.MatC, "m": o.MOverride, "n": o.NOverride, "k": o.KOverride}
				text.write(label, ports, func(port string) int { return number(named[port]) })
			}
			out[name+" "+pass] = text.ops.String() + text.tensors.String()
		}
	}
	return out, true
}

// TestCuDNNDescriptors sets every attribute of every descriptor of many cases, which a
// libcudnn checks without a GPU.
func TestCuDNNDescriptors(t *testing.T) {
	n := &dnn{}
	n.lib.Name, n.nvrtc.Name = "cudnn", "nvrtc"
	if err := n.open(); err != nil {
		t.Skip("no cuDNN: ", err)
	}
	t.Logf("cuDNN %s of %s; NVRTC %s %v", n.lib.Version, n.lib.Path, n.nvrtc.Path, n.nvrtc.Err)
	for _, c := range graphCases {
		for variant := range 16 {
			s := c.s
			s.backward, s.deterministic, s.fullRagged = variant&1 != 0, variant&2 != 0, variant&4 != 0
			if variant&8 != 0 {
				s.window = 100
				s.dQ, s.dKV, s.dO = 2*s.dQ, 2*s.dKV, 2*s.dO
			}
			if s.deterministic && !s.backward {
				continue
			}
			p := &dnnPlan{descriptors: descriptors{n: n, what: s.String()}}
			p.describe(newSDPA(s))
			if p.err != nil {
				t.Errorf("%s: %v", c.name, p.err)
			}
			p.free()
		}
	}
}
