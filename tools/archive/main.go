// Command archive packs release archives whose bytes depend on their files alone:
// entries are sorted, carry one given time and no owner.
//
//	archive -time SECONDS -sums SHA256SUMS DIR.tar.gz=DIR DIR.zip=DIR ...
package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	seconds := flag.Int64("time", 0, "time of all entries, in seconds since 1970")
	sums := flag.String("sums", "", "file for the archives' SHA-256")
	flag.Parse()
	if err := run(time.Unix(*seconds, 0).UTC(), *sums, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "archive:", err)
		os.Exit(1)
	}
}

func run(at time.Time, sums string, pairs []string) error {
	var list strings.Builder
	for _, p := range pairs {
		name, dir, ok := strings.Cut(p, "=")
		if !ok {
			return fmt.Errorf("%q: expected ARCHIVE=FOLDER", p)
		}
		hash, err := pack(name, dir, at)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Fprintf(&list, "%x  %s\n", hash, filepath.Base(name))
	}
	if sums == "" {
		return nil
	}
	return os.WriteFile(sums, []byte(list.String()), 0o666)
}

// pack writes the archive name, .zip or .tar.gz, of a folder, and returns its SHA-256.
func pack(name, dir string, at time.Time) ([]byte, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	hash := sha256.New()
	write := packTar
	if strings.HasSuffix(name, ".zip") {
		write = packZip
	}
	if err := write(io.MultiWriter(f, hash), dir, at); err != nil {
		return nil, err
	}
	return hash.Sum(nil), f.Close()
}

// each visits the files of a folder, sorted, by the names they get in an archive:
// the folder's own name comes first.
func each(dir string, visit func(name string, mode fs.FileMode, content []byte) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(filepath.Dir(dir), path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return visit(filepath.ToSlash(rel), mode, content)
	})
}

func packTar(w io.Writer, dir string, at time.Time) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	err = each(dir, func(name string, mode fs.FileMode, content []byte) error {
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: int64(mode), Size: int64(len(content)), ModTime: at, Format: tar.FormatPAX}); err != nil {
			return err
		}
		_, err := t.Write(content)
		return err
	})
	if err != nil {
		return err
	}
	if err := t.Close(); err != nil {
		return err
	}
	return z.Close()
}

func packZip(w io.Writer, dir string, at time.Time) error {
	z := zip.NewWriter(w)
	err := each(dir, func(name string, mode fs.FileMode, content []byte) error {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: at}
		h.SetMode(mode)
		f, err := z.CreateHeader(h)
		if err != nil {
			return err
		}
		_, err = f.Write(content)
		return err
	})
	if err != nil {
		return err
	}
	return z.Close()
}
