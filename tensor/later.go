package tensor

// Pending is a copy to the host that has been enqueued.
type Pending interface {
	// Wait waits for the copy, not for what was enqueued after it, and returns its bytes
	// and the first error of what was enqueued before it, as Sync does. It is called once.
	Wait() ([]byte, error)
}

// Reader is a Device that copies to the host without waiting: the caller enqueues more
// and looks at the numbers when they have come.
type Reader interface {
	// ReadLater enqueues a copy of src, which is dense and small (a loss, a step block,
	// a number for each token).
	ReadLater(src Tensor) Pending
}

// ReadLater enqueues a copy of a dense tensor to the host; on a device that is no
// Reader it is made at once.
func ReadLater(src Tensor) Pending {
	if r, ok := src.Device.(Reader); ok {
		return r.ReadLater(src)
	}
	err := src.Device.Sync()
	out := make([]byte, src.Bytes())
	if err == nil {
		src.Device.Read(out, src)
	}
	return done{out, err}
}

// done is a copy that was made at once.
type done struct {
	data []byte
	err  error
}

func (d done) Wait() ([]byte, error) { return d.data, d.err }

// GetFloat32Later starts reading a dense float tensor, as GetFloat32 does; what it returns
// waits for the numbers.
func GetFloat32Later(src Tensor) func() ([]float32, error) {
	src.mustBeFloat()
	pending, out := ReadLater(src), make([]float32, src.Len())
	return func() ([]float32, error) {
		data, err := pending.Wait()
		switch src.Dtype {
		case F32:
			copy(bytesOf(out), data)
		case F64:
			wide := make([]float64, len(out))
			copy(bytesOf(wide), data)
			for i, x := range wide {
				out[i] = float32(x)
			}
		default:
			half := make([]uint16, len(out))
			copy(bytesOf(half), data)
			widen(out, src.Dtype, half)
		}
		return out, err
	}
}

// GetFloat64Later starts reading a dense F64 tensor; what it returns waits for the numbers.
func GetFloat64Later(src Tensor) func() ([]float64, error) {
	mustBe(src, F64)
	pending, out := ReadLater(src), make([]float64, src.Len())
	return func() ([]float64, error) {
		data, err := pending.Wait()
		copy(bytesOf(out), data)
		return out, err
	}
}
