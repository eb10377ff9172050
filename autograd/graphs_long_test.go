//go:build long

package autograd

const graphs = 20000 // of TestMetamorphic
