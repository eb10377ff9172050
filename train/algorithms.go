package train

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"ringtail/atomicfile"
	"ringtail/runs"
	"ringtail/tensor"
)

// chooser is a device that chooses algorithms of matrix products; results of different
// ones differ in rounding. A run keeps the choices in its folder, so that it goes on with
// the same ones, and another run can be made like it.
type chooser interface {
	GEMMChoices() []byte
	LoadGEMMChoices(content []byte) error
}

// loadAlgorithms makes a device choose as a run did.
func loadAlgorithms(dev tensor.Device, dir string) error {
	c, ok := dev.(chooser)
	if !ok {
		return nil
	}
	path := filepath.Join(dir, runs.AlgorithmsFile)
	content, err := os.ReadFile(path)
	if err == nil {
		if err = c.LoadGEMMChoices(content); err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}
	return err
}

// likeRun does so for the run that is gone on with, which may have ended before it chose
// anything, or for the one that is to be repeated.
func likeRun(dev tensor.Device, opt Options) error {
	if opt.Resume {
		err := loadAlgorithms(dev, opt.Dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if opt.Like == "" {
		return nil
	}
	err := loadAlgorithms(dev, opt.Like)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s has no %s: it is no run on a GPU", opt.Like, runs.AlgorithmsFile)
	}
	return err
}

// keepAlgorithms writes the choices so far into the run's folder, where there are new ones.
func (t *Trainer) keepAlgorithms() error {
	c, ok := t.objective.common().dev.(chooser)
	if !ok {
		return nil
	}
	content := c.GEMMChoices()
	if bytes.Equal(content, t.algorithms) {
		return nil
	}
	t.algorithms = content
	return atomicfile.WriteBytes(filepath.Join(t.dir, runs.AlgorithmsFile), 0o666, content)
}
