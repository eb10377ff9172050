package tensor

// Labeler is a device that keeps account of what its memory is for, so that it can say,
// when there is too little, what took it.
type Labeler interface {
	// Label names the part of the memory that is allocated from now on, until restore
	// is called: "weights", "gradients", "master weights", "moments", "activations",
	// "inputs", "KV cache".
	Label(part string) (restore func())
}

// Label is dev's, or does nothing where dev keeps no account.
func Label(dev Device, part string) (restore func()) {
	if l, ok := dev.(Labeler); ok {
		return l.Label(part)
	}
	return func() {}
}
