package torchfile

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"strings"
)

func isZip(b []byte) bool { return len(b) >= 4 && string(b[:4]) == "PK\x03\x04" }

// maxEntries is more than a model has storages.
const maxEntries = 1 << 20

// archive is the zip file of torch ≥ 1.6, its entries by their names without the folder.
type archive struct {
	all     []byte
	entries map[string]*zip.File
}

// loadZip runs the pickle of an archive.
func loadZip(b []byte) (any, error) {
	a, err := openArchive(b)
	if err != nil {
		return nil, err
	}
	code, ok, err := a.bytes("data.pkl")
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errors.New("a zip archive without data.pkl: not a file of torch.save")
	}
	if order, ok, err := a.bytes("byteorder"); err != nil {
		return nil, err
	} else if ok && string(order) != "little" {
		return nil, fmt.Errorf("byteorder is %s, expected little: saved on another kind of machine; load and save it again on a common one", quote(string(order)))
	}
	storages := map[string]*storage{}
	var tensors []*tensor
	root, _, err := runPickle(code, func(id tuple) (any, error) { return a.storage(id, storages) }, &tensors)
	if err != nil {
		return nil, err
	}
	for _, t := range tensors {
		if err := t.settle(); err != nil {
			return nil, err
		}
	}
	return root, nil
}

func openArchive(b []byte) (*archive, error) {
	// zip.NewReader trusts nothing: it bounds the directory by the bytes there are.
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, fmt.Errorf("zip archive: %w: the file is cut off (download or copy it again)", err)
	}
	if len(z.File) > maxEntries {
		return nil, fmt.Errorf("zip archive of %d entries; up to %d are read", len(z.File), maxEntries)
	}
	folder := ""
	for _, f := range z.File {
		if dir, ok := strings.CutSuffix(f.Name, "/data.pkl"); ok && (folder == "" || len(dir) < len(folder)) {
			folder = dir
		}
	}
	a := &archive{all: b, entries: map[string]*zip.File{}}
	for _, f := range z.File {
		name := strings.TrimPrefix(f.Name, folder+"/")
		if strings.HasPrefix(name, "code/") || name == "constants.pkl" {
			return nil, errors.New("a TorchScript program, which is code; save model.state_dict() instead")
		}
		a.entries[name] = f
	}
	return a, nil
}

// bytes is an entry's content as it lies in the file. Its checksum is not compared:
// that would read the whole file, and PyTorch may be told not to compute it.
func (a *archive) bytes(name string) (content []byte, ok bool, err error) {
	f, ok := a.entries[name]
	if !ok {
		return nil, false, nil
	}
	if f.Method != zip.Store || f.CompressedSize64 != f.UncompressedSize64 {
		return nil, true, fmt.Errorf("entry %s is compressed, which torch.save never does: unpack the archive and pack it again with zip -0", quote(name))
	}
	at, err := f.DataOffset()
	if err != nil {
		return nil, true, fmt.Errorf("zip archive: entry %s: %w", quote(name), err)
	}
	if at < 0 || uint64(at) > uint64(len(a.all)) || f.CompressedSize64 > uint64(len(a.all))-uint64(at) {
		return nil, true, fmt.Errorf("zip archive: entry %s reaches beyond the end: the file is cut off (download or copy it again)", quote(name))
	}
	end := at + int64(f.CompressedSize64)
	return a.all[at:end:end], true, nil
}

// storage finds the entry that a pickle refers to.
func (a *archive) storage(id tuple, seen map[string]*storage) (*storage, error) {
	key, class, elements, err := storageID(id)
	if err != nil {
		return nil, err
	}
	dtype, err := dtypeOf(class)
	if err != nil {
		return nil, err
	}
	want, err := byteLen(elements, dtype)
	if err != nil {
		return nil, err
	}
	// A storage may be referred to as another type; its bytes are the same.
	if s, ok := seen[key]; ok && s.dtype == dtype && uint64(len(s.bytes)) == want {
		return s, nil
	}
	content, ok, err := a.bytes("data/" + key)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("storage %s is missing: no entry data/%s in the archive", quote(key), key)
	}
	if uint64(len(content)) < want {
		return nil, fmt.Errorf("storage %s has %d bytes, expected %d of %s", quote(key), len(content), want, dtype)
	}
	s := &storage{key: key, dtype: dtype, bytes: content[:want]}
	seen[key] = s
	return s, nil
}
