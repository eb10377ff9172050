//go:build !long

package autograd

const graphs = 400 // of TestMetamorphic
