package main

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// procField is the first value of a field in a file of "name : value" lines.
func procField(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func cpuName() string { return procField("/proc/cpuinfo", "model name") }

// memory is the machine's memory and what of it is available, in bytes; 0 if unknown.
func memory() (total, available uint64) {
	kib := func(name string) uint64 {
		n, _ := strconv.ParseUint(strings.TrimSuffix(procField("/proc/meminfo", name), " kB"), 10, 64)
		return n << 10
	}
	return kib("MemTotal"), kib("MemAvailable")
}
