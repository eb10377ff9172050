package torchfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// legacyMagic is 0x1950a86a20f9469cfc6c, the number that files of torch < 1.6 begin with.
var legacyMagic = raw{0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19}

const legacyProtocol = 1001

// loadLegacy runs the pickles of a file of torch < 1.6, and finds the storages after them.
func loadLegacy(b []byte) (any, error) {
	magic, n, err := runPickle(b, nil, nil)
	if err != nil {
		return nil, err
	}
	if m, ok := magic.(raw); !ok || !bytes.Equal(m, legacyMagic) {
		return nil, fmt.Errorf("a pickle of %s, not a file of torch.save", kindOf(magic))
	}
	b = b[n:]
	version, n, err := runPickle(b, nil, nil)
	if err != nil {
		return nil, err
	}
	if version != int64(legacyProtocol) {
		return nil, fmt.Errorf("protocol version is %s, expected %d", kindOf(version), legacyProtocol)
	}
	b = b[n:]
	info, n, err := runPickle(b, nil, nil)
	if err != nil {
		return nil, err
	}
	if d, ok := info.(*dict); !ok || d.get("little_endian") == false {
		return nil, errors.New("little_endian is not true: saved on another kind of machine; load and save it again on a common one")
	}
	b = b[n:]
	storages := map[string]*storage{}
	var tensors []*tensor
	root, n, err := runPickle(b, func(id tuple) (any, error) { return legacyStorage(id, storages) }, &tensors)
	if err != nil {
		return nil, err
	}
	b = b[n:]
	keys, n, err := runPickle(b, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("list of storages: %w", err)
	}
	if err := readStorages(b[n:], keys, storages); err != nil {
		return nil, err
	}
	for _, t := range tensors {
		if err := t.settle(); err != nil {
			return nil, err
		}
	}
	return root, nil
}

// legacyStorage notes a storage, whose bytes are not known yet. A view, which old
// files have, is (key, offset, elements) of the storage.
func legacyStorage(id tuple, storages map[string]*storage) (*storage, error) {
	key, class, elements, err := storageID(id)
	if err != nil {
		return nil, err
	}
	dtype, err := dtypeOf(class)
	if err != nil {
		return nil, err
	}
	if _, err := byteLen(elements, dtype); err != nil {
		return nil, err
	}
	s, ok := storages[key]
	switch {
	case !ok:
		s = &storage{key: key, dtype: dtype, length: elements}
		storages[key] = s
	case s.dtype != dtype || s.length != elements:
		return nil, fmt.Errorf("storage %s is first %d elements of %s, then %d of %s", quote(key), s.length, s.dtype, elements, dtype)
	}
	if len(id) < 6 || id[5] == nil {
		return s, nil
	}
	v, ok := id[5].(tuple)
	if !ok || len(v) != 3 {
		return nil, fmt.Errorf("broken: a view of storage %s is %s", quote(key), kindOf(id[5]))
	}
	start, ok1 := v[1].(int64)
	length, ok2 := v[2].(int64)
	if !ok1 || !ok2 || start < 0 || length < 0 {
		return nil, fmt.Errorf("broken: a view of storage %s from %s with %s", quote(key), kindOf(v[1]), kindOf(v[2]))
	}
	return &storage{key: key, dtype: dtype, base: s, start: uint64(start), length: uint64(length)}, nil
}

// readStorages finds, in the bytes after the pickles, each storage's length
// (in elements, 8 bytes) and content, in the order of keys.
func readStorages(b []byte, keys any, storages map[string]*storage) error {
	order, ok := keys.(*list)
	if !ok {
		return fmt.Errorf("list of storages is %s", kindOf(keys))
	}
	for _, k := range order.items {
		key := text(k)
		s, ok := storages[key]
		if !ok {
			return fmt.Errorf("storage %s is listed, but no tensor has it", quote(key))
		}
		if s.bytes != nil {
			return fmt.Errorf("storage %s is listed twice", quote(key))
		}
		if len(b) < 8 {
			return fmt.Errorf("storage %s: the file ends before it: cut off (download or copy it again)", quote(key))
		}
		if n := binary.LittleEndian.Uint64(b); n != s.length {
			return fmt.Errorf("storage %s has %d elements, expected %d", quote(key), n, s.length)
		}
		want, err := byteLen(s.length, s.dtype)
		if err != nil {
			return err
		}
		b = b[8:]
		if want > uint64(len(b)) {
			return fmt.Errorf("storage %s has %d bytes of %d: the file is cut off (download or copy it again)", quote(key), len(b), want)
		}
		s.bytes = b[:want:want]
		b = b[want:]
	}
	for key, s := range storages {
		if s.bytes == nil && s.length > 0 {
			return fmt.Errorf("storage %s is missing from the list of storages", quote(key))
		}
	}
	return nil
}
