package torchfile

import (
	"errors"
	"fmt"
	"strings"
)

// storageDtypes are the classes of storages in torch, by what they hold.
var storageDtypes = map[string]string{
	"FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "DoubleStorage": "F64",
	"LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8", "BoolStorage": "BOOL",
	"UntypedStorage": "U8",
}

// dtypes are the names of torch.dtype that are read.
var dtypes = map[string]string{
	"float32": "F32", "float": "F32", "float16": "F16", "half": "F16", "bfloat16": "BF16", "float64": "F64", "double": "F64",
	"int64": "I64", "long": "I64", "int32": "I32", "int": "I32", "int16": "I16", "short": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
	"uint16": "U16", "uint32": "U32", "uint64": "U64",
}

// dtypeSize is the size of an element in bytes.
var dtypeSize = map[string]int{
	"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}

type constructor func(args []any) (any, error)

// rebuilds are torch._utils' functions that make tensors.
var rebuilds = map[string]constructor{
	"_rebuild_tensor":               rebuildTensor,
	"_rebuild_tensor_v2":            rebuildTensor,
	"_rebuild_tensor_v3":            rebuildTensorV3,
	"_rebuild_parameter":            firstTensor,
	"_rebuild_parameter_with_state": firstTensor,
}

// containers are the other functions that a pickle may call.
var containers = map[global]constructor{
	{"torch._tensor", "_rebuild_from_type_v2"}: rebuildFromType,
	{"torch.nn.parameter", "Parameter"}:        firstTensor,
	{"collections", "OrderedDict"}:             newDict,
	{"torch", "Size"}:                          newSize,
	{"torch", "device"}:                        newDevice,
	{"builtins", "set"}:                        newSet,
	{"builtins", "frozenset"}:                  newSet,
	{"builtins", "bytes"}:                      newBytes,
	{"builtins", "bytearray"}:                  newBytes,
	{"_codecs", "encode"}:                      newBytes,
}

// constructorOf finds what stands for a function that a pickle may call. None of
// these is Python's: each makes one of our own values from its arguments.
func constructorOf(g global) (constructor, bool) {
	if g.module == "torch._utils" {
		f, ok := rebuilds[g.name]
		return f, ok
	}
	f, ok := containers[g]
	return f, ok
}

// allowed tells whether a pickle may name a global.
func allowed(g global) bool {
	if _, ok := constructorOf(g); ok {
		return true
	}
	switch {
	case g == global{"torch._tensor", "Tensor"} || g == global{"torch", "Tensor"}: // as an argument only
		return true
	case g.module == "torch":
		_, isStorage := storageDtypes[g.name]
		_, isDtype := dtypes[g.name]
		return isStorage || isDtype
	case g.module == "torch.storage":
		return g.name == "UntypedStorage" || g.name == "TypedStorage"
	}
	return false
}

// pushGlobal pushes the name of a class or function, if it is one that is allowed.
func (m *machine) pushGlobal(module, name string) error {
	if module == "__builtin__" { // Python 2's, which protocol 2 writes
		module = "builtins"
	}
	g := global{module, name}
	if !allowed(g) {
		return refused(g)
	}
	m.push(g)
	return nil
}

func refused(g global) error {
	if g.module == "torch" {
		switch {
		case strings.HasSuffix(g.name, "Storage"):
			return fmt.Errorf("tensors of %v, which are not read", g)
		case strings.HasPrefix(g.name, "float8") || strings.HasPrefix(g.name, "complex") || strings.HasPrefix(g.name, "q"):
			return fmt.Errorf("tensors of dtype %v, which are not read", g)
		}
	}
	return fmt.Errorf("asks for %v, which is not needed for tensors: loading this file would run code; it is refused (save model.state_dict() instead, or safetensors)", g)
}

// call replaces the global on top of the stack by what it makes from args.
func (m *machine) call(args any) error {
	f, err := m.pop()
	if err != nil {
		return err
	}
	g, ok := f.(global)
	if !ok {
		return fmt.Errorf("broken: calls %s", kindOf(f))
	}
	values, ok := args.(tuple)
	if !ok {
		return fmt.Errorf("broken: calls %v with %s instead of arguments", g, kindOf(args))
	}
	for _, a := range values {
		if l, ok := a.(*list); ok { // which a call may copy, and a pickle may hand to any number of calls
			m.made += len(l.items)
		}
	}
	build, ok := constructorOf(g)
	if !ok {
		return fmt.Errorf("calls %v, which makes no tensor", g)
	}
	v, err := build(values)
	if err != nil {
		return fmt.Errorf("%s: %w", g.name, err)
	}
	if t, ok := v.(*tensor); ok && m.tensors != nil {
		*m.tensors = append(*m.tensors, t)
	}
	m.push(v)
	return nil
}

// firstTensor is a parameter: (data, requires_grad, hooks[, state]).
func firstTensor(args []any) (any, error) {
	if len(args) == 0 {
		return nil, errors.New("no arguments")
	}
	t, ok := args[0].(*tensor)
	if !ok {
		return nil, fmt.Errorf("made from %s, expected a tensor", kindOf(args[0]))
	}
	return t, nil
}

// rebuildFromType is a tensor with attributes: (function, type, arguments, state).
func rebuildFromType(args []any) (any, error) {
	if len(args) < 3 {
		return nil, fmt.Errorf("%d arguments, expected 4", len(args))
	}
	f, ok1 := args[0].(global)
	inner, ok2 := args[2].(tuple)
	if !ok1 || !ok2 {
		return nil, errors.New("arguments of the wrong kind")
	}
	rebuild, ok := rebuilds[f.name]
	if !ok || f.module != "torch._utils" {
		return nil, fmt.Errorf("calls %v, which makes no tensor", f)
	}
	return rebuild(inner)
}

// newDict is OrderedDict(), or OrderedDict([(key, value), …]) as Python 2 wrote it.
func newDict(args []any) (any, error) {
	d := &dict{}
	if len(args) == 0 {
		return d, nil
	}
	pairs, ok := args[0].(*list)
	if !ok || len(args) > 1 {
		return nil, fmt.Errorf("made from %s", kindOf(args[0]))
	}
	for _, p := range pairs.items {
		var kv []any
		switch p := p.(type) {
		case tuple:
			kv = p
		case *list:
			kv = p.items
		}
		if len(kv) != 2 {
			return nil, fmt.Errorf("an item is %s, expected a key and a value", kindOf(p))
		}
		d.set(kv[0], kv[1])
	}
	return d, nil
}

// newSize is torch.Size((…)).
func newSize(args []any) (any, error) {
	if len(args) == 1 {
		switch v := args[0].(type) {
		case tuple:
			return v, nil
		case *list:
			return tuple(v.items), nil
		}
	}
	return nil, errors.New("expected one tuple")
}

// newDevice is torch.device("cuda", 0).
func newDevice(args []any) (any, error) { return opaque{"a device"}, nil }

// newSet is set([…]) of protocol 2.
func newSet(args []any) (any, error) { return &set{}, nil }

// newBytes is how protocol 2 spells bytes: encode("…", "latin1"), or bytes().
func newBytes(args []any) (any, error) { return opaque{"bytes"}, nil }
