package tensor

import "fmt"

// Fusion is what Matmul does with the product before it is stored.
type Fusion uint8

// The fusions; see Matmul.
const (
	Unfused Fusion = iota
	GELUForward
	GELUBackward
)

// Plain tells whether m is no more than a product, with or without Bias.
func (m Matmul) Plain() bool { return m.DBias.IsZero() && m.Fused == Unfused }

// Apart runs what isn't plain as a plain product and operations beside it: on devices, and
// for operands, that can't have both at once.
func (m Matmul) Apart(ops *Ops) {
	m.checkFusion()
	plain := m
	plain.DBias, plain.Fused, plain.Pre = Tensor{}, Unfused, Tensor{}
	if m.Fused == GELUForward {
		plain.C = m.Pre
	}
	ops.Matmul(plain)
	switch m.Fused {
	case GELUForward:
		ops.Activate(m.C, m.Pre, GELUTanh)
	case GELUBackward:
		ops.ActivateBackward(m.C, m.C, m.Pre, GELUTanh)
	}
	if !m.DBias.IsZero() {
		ops.SumRows(m.DBias, m.A)
	}
}

func (m Matmul) checkFusion() {
	switch {
	case !m.DBias.IsZero() && (!m.TransA || m.Fused != Unfused):
		panic(fmt.Sprintf("tensor: Matmul with DBias %v, TransA %v, Fused %d; DBias needs TransA and no fusion", m.DBias, m.TransA, m.Fused))
	case m.Fused != Unfused && (m.Beta != 0 || m.Pre.Rows() != m.C.Rows() || m.Pre.Cols() != m.C.Cols() || m.Pre.Dtype != m.C.Dtype):
		panic(fmt.Sprintf("tensor: fused Matmul with Beta %g, C %v and Pre %v; they must be alike, and Beta 0", m.Beta, m.C, m.Pre))
	case m.Fused == GELUBackward && !m.Bias.IsZero():
		panic("tensor: Matmul with GELUBackward and a Bias")
	}
}
