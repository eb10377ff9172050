package hub

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// errLocked is another program's lock.
var errLocked = errors.New("locked")

// lock takes a lock file the way that huggingface_hub's filelock does (flock; on
// Windows its first byte), waiting as long as another program has it. The file stays: to
// remove it would let two hold it.
func (c *Client) lock(ctx context.Context, path, what string) (unlock func(), err error) {
	told := false
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o664)
		if err != nil {
			return nil, fmt.Errorf("cache: %w", err)
		}
		err = tryLock(f)
		if err == nil && sameFile(f, path) {
			return func() { unlockFile(f); f.Close() }, nil
		}
		if err == nil {
			unlockFile(f) // someone removed the file meanwhile: others would lock the new one
		}
		f.Close()
		if err != nil && !errors.Is(err, errLocked) {
			return nil, fmt.Errorf("cache: locking %s: %w", path, err)
		}
		if !told && err != nil {
			told = true
			c.Note(fmt.Sprintf("%s: another program is downloading it; waiting", what))
		}
		t := time.NewTimer(50 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

func sameFile(f *os.File, path string) bool {
	a, err1 := f.Stat()
	b, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}
