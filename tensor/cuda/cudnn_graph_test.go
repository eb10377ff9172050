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
			number := func(name string) int {
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

// hopper is what cuDNN wants to know of a GPU, an H200 (its JSON representation).
const hopper = `{"deviceVer":900,"driverVer":13000,"cudaDeviceId":0,"multiProcessorCount":132,"maxGridSize":[2147483647,65535,65535],
"maxBlockSize":[1024,1024,64],"regsPerBlock":65536,"warpSize":32,"maxSharedMemoryPerBlock":49152,"maxSharedMemoryPerBlockOptin":232448,
"reservedSharedMemoryPerBlock":1024,"maxRegistersPerSM":65536,"maxCtasPerSM":32,"maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,
"pciDeviceId":0,"isTccDriver":0,"supportCoopLaunch":1,"totalGlobalMem":150000000000,"smClockRateKHz":1980000,"memClockRateKHz":3201000,
"l2CacheSize":62914560,"deviceName":"NVIDIA H200"}`

// TestCuDNNPlans describes every kind of case that attention_cudnn.go has to cuDNN, for a
// GPU that isn't there, and finds the operation graphs taken. With RINGTAIL_CUDNN_PLANS it
// makes plans as well: it needs a libcuda (any: no GPU is asked), and some seconds a plan,
// which is the time that NVRTC takes for cuDNN's kernel.
func TestCuDNNPlans(t *testing.T) {
	n := &dnn{}
	n.lib.Name, n.nvrtc.Name = "cudnn", "nvrtc"
	if err := n.open(); err != nil {
		t.Skip("no cuDNN: ", err)
	}
	t.Logf("cuDNN %s of %s; NVRTC %s %v", n.lib.Version, n.lib.Path, n.nvrtc.Path, n.nvrtc.Err)
	device := descriptors{n: n, what: "a GPU"}
	defer device.free()
	n.properties = device.create(kindDevice)
	setValues(&device, n.properties, attrDeviceJSON, []byte(hopper)...)
	device.finalize(n.properties, "device")
	if device.err != nil {
		t.Fatal(device.err)
	}
	for _, heads := range [][3]int{{4, 4, 128}, {8, 2, 64}, {8, 8, 80}} {
		for variant := range 64 {
			h, kv, dim := heads[0], heads[1], heads[2]
			row := (h + 2*kv) * dim
			s := sdpa{dtype: tensor.BF16, sequences: 3, longest: 300, heads: h, kvHeads: kv, headDim: dim,
				q: row, kv: row, o: h * dim, dO: h * dim, dQ: row, dKV: row, statsSequence: 300, statsHead: 900, statsToken: 1}
			s.packed, s.backward = variant&1 != 0, variant&2 != 0
			s.deterministic = variant&4 != 0
			s.fullRagged = variant&8 != 0
			if variant&16 != 0 {
				s.window = 70
				s.dQ, s.dKV, s.dO = 2*row, 2*row, 2*h*dim
			}
			if variant&32 != 0 {
				s.statsSequence, s.statsHead = 300*h, 300
				if s.packed {
					s.statsHead, s.statsToken = 1, h
				}
			}
			if s.deterministic && (!s.backward || s.packed) || s.fullRagged && (!s.packed || !s.backward || h == kv) {
				continue
			}
			label := fmt.Sprintf("%v, statistics %d %d %d, full heads by tokens %v", s, s.statsSequence, s.statsHead, s.statsToken, s.fullRagged)
			p := &dnnPlan{descriptors: descriptors{n: n, what: s.String()}}
			graph := p.describe(newSDPA(s))
			if p.err == nil && os.Getenv("RINGTAIL_CUDNN_PLANS") != "" {
				p.choose(graph)
				t.Logf("%s: workspace %d", label, p.workspace)
			}
			if p.err != nil {
				t.Errorf("%s: %v", label, p.err)
			}
			p.free()
		}
	}
}
