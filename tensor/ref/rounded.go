package ref

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"ringtail/tensor"
)

// NewRounded returns the oracle of mixed precision: a device that keeps floats as
// d (F32, BF16 or F16) and statistics as d.Wide(). Every operation is the float64
// one on float64 copies of its operands; what it changes is rounded once, to
// nearest, when it is stored. Operands of another type than tensor/ops.go gives
// them panic.
func NewRounded(d tensor.Dtype) *Device {
	if !d.IsFloat() {
		panic(fmt.Sprintf("ref: device of %v", d))
	}
	if d == tensor.F64 {
		return New()
	}
	return &Device{float: d}
}

// roundedOps wraps every operation but those that know all types by themselves.
func roundedOps(float tensor.Dtype) *tensor.Ops {
	ops := exactOps()
	fields := reflect.ValueOf(ops).Elem()
	for i := range fields.NumField() {
		name, exact := fields.Type().Field(i).Name, fields.Field(i)
		if name == "Zero" || name == "Copy" || exact.IsNil() {
			continue
		}
		op := reflect.ValueOf(exact.Interface()) // as it is before the field is set
		exact.Set(reflect.MakeFunc(op.Type(), func(args []reflect.Value) []reflect.Value {
			c := &copies{float: float}
			for i, a := range args {
				w := reflect.New(a.Type()).Elem()
				w.Set(a)
				c.replace(name, strconv.Itoa(i), w)
				args[i] = w
			}
			op.Call(args)
			c.store()
			return nil
		}))
	}
	adamW := ops.AdamW
	ops.AdamW = func(a tensor.AdamW) {
		if a.Stochastic {
			panic("ref: AdamW with Stochastic on " + float.String() + " is not offered; leave it out")
		}
		adamW(a)
		if !a.Master.IsZero() && a.Step.Float64()[tensor.StepSkip] == 0 {
			copyTensor(a.Param, a.Master) // of the stored Master: rounded from its type, not from float64
		}
	}
	return ops
}

// copies are the float64 copies of an operation's operands.
type copies struct {
	float tensor.Dtype
	of    []copied
}

type copied struct {
	narrow, wide tensor.Tensor
	before       []float64
}

// replace puts copies in the place of the narrow floats among v's tensors; argument
// is the place or the field of v in the operation's arguments.
func (c *copies) replace(op, argument string, v reflect.Value) {
	switch x := v.Addr().Interface().(type) {
	case *tensor.Tensor:
		*x = c.widened(op, argument, *x)
	case *[]tensor.Tensor:
		*x = slices.Clone(*x)
		for i, t := range *x {
			(*x)[i] = c.widened(op, argument, t)
		}
	default:
		if v.Kind() != reflect.Struct {
			return
		}
		for i := range v.NumField() {
			c.replace(op, v.Type().Field(i).Name, v.Field(i))
		}
	}
}

// widened is the copy of t: one for all operands of one place and shape, so that
// what may be in place is.
func (c *copies) widened(op, argument string, t tensor.Tensor) tensor.Tensor {
	if t.IsZero() || !t.Dtype.IsFloat() {
		return t
	}
	if !c.fits(op, argument, t.Dtype) {
		panic(fmt.Sprintf("ref: %s's %s is %v on a device of %v; see the types in tensor/ops.go", op, argument, t, c.float))
	}
	if t.Dtype == tensor.F64 {
		return t
	}
	for _, o := range c.of {
		if o.narrow.Addr == t.Addr && o.narrow.Dtype == t.Dtype && o.narrow.Stride == t.Stride && slices.Equal(o.narrow.Shape, t.Shape) {
			return o.wide
		}
	}
	wide, _, err := tensor.New(New(), tensor.F64, t.Shape...)
	if err != nil {
		panic(err)
	}
	copyTensor(wide, t)
	c.of = append(c.of, copied{t, wide, slices.Clone(wide.Float64())})
	return wide
}

// store rounds what changed into the operands. What did not keeps its bits: a NaN
// has many, and another operand may lie there.
func (c *copies) store() {
	for _, o := range c.of {
		after := o.wide.Float64()
		if len(after) > 0 {
			put, cols := storeOf(o.narrow), o.wide.Cols()
			for i, x := range after {
				if math.Float64bits(x) != math.Float64bits(o.before[i]) {
					put(i/cols*o.narrow.Stride+i%cols, x)
				}
			}
		}
		free(o.wide.Addr)
	}
}

// wideArguments and eitherArguments are the operands that are not Float, by operation and
// argument (its place, where arguments are no struct), or by the argument alone.
const (
	wideArguments   = " Mean RStd LSE LogProbs Entropies DLogProbs DEntropies Scale Cos Sin Master AMax AMaxT ScaleT ScaleA ScaleB Next AMax.All AMax.Rows AMax.Columns "
	eitherArguments = " Add.0 Add.1 Add.2 Scale.0 SoftCap.0 SoftCap.1 Matmul.C Matmul.A Matmul.B Matmul.Bias Matmul.Pre SumRows.0 SumRows.1 EmbeddingBackward.0 " +
		"DW DBias DWQ DWK GroupedOuter.C Sample.Logits SumSquares.1 Param Grad M V AMax.X Quantize.X "
	doubleArguments = " Loss Step Check SumSquares.0 "
)

// fits tells whether an operand may be of type d.
func (c *copies) fits(op, argument string, d tensor.Dtype) bool {
	listed := func(in string) bool {
		return strings.Contains(in, " "+op+"."+argument+" ") || strings.Contains(in, " "+argument+" ")
	}
	switch {
	case listed(doubleArguments):
		return d == tensor.F64
	case listed(wideArguments):
		return d == c.float.Wide()
	case listed(eitherArguments):
		return d == c.float || d == c.float.Wide()
	}
	return d == c.float
}
