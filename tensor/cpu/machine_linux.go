package cpu

import (
	"bytes"
	"os"
	"strconv"
	"sync"
)

// machineMemory is how much memory this process may use at most, in bytes: the
// machine's, or that of its control group where it has a limit. 0 is unknown.
var machineMemory = sync.OnceValue(func() int64 {
	limit := int64(0)
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		if _, rest, ok := bytes.Cut(b, []byte("MemTotal:")); ok {
			if f := bytes.Fields(rest); len(f) > 0 {
				kib, _ := strconv.ParseInt(string(f[0]), 10, 64)
				limit = kib << 10
			}
		}
	}
	// The limit of the root group, or of a container that sees its own as the root.
	if b, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64); err == nil && n > 0 && (limit == 0 || n < limit) {
			limit = n
		}
	}
	return limit
})
