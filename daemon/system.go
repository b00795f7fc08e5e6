package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// timeSynced says whether the kernel's clock is synchronised.
func timeSynced() bool {
	const timeError = 5 // TIME_ERROR of adjtimex(2)
	state, err := unix.Adjtimex(&unix.Timex{})
	return err == nil && state != timeError
}

// bootID is the kernel's, another at every boot; "" where there is none.
var bootID = sync.OnceValue(func() string { return firstLine("/proc/sys/kernel/random/boot_id") })

// residentMemory is this process's, in bytes; 0 where it cannot be read.
func residentMemory() int64 {
	fields := strings.Fields(firstLine("/proc/self/statm"))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// memoryLimit is what this process's cgroup (v2) allows, in bytes; 0 is no limit.
var memoryLimit = sync.OnceValue(func() int64 {
	_, group, found := strings.Cut(firstLine("/proc/self/cgroup"), "0::")
	if !found {
		return 0
	}
	limit, _ := strconv.ParseInt(firstLine(filepath.Join("/sys/fs/cgroup", group, "memory.max")), 10, 64) // "max" is none
	return limit
})

// freeBytes is what is left of the file system that holds dir, for users who are not root.
func freeBytes(dir string) int64 {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return 0
	}
	return int64(s.Bavail) * s.Bsize
}

// hottestZone is the highest temperature that the kernel measures, in degrees Celsius.
func hottestZone() (celsius float64, ok bool) {
	zones, _ := filepath.Glob("/sys/class/thermal/thermal_zone*/temp")
	for _, z := range zones {
		if milli, err := strconv.ParseFloat(firstLine(z), 64); err == nil && milli > 0 {
			celsius, ok = max(celsius, milli/1000), true
		}
	}
	return celsius, ok
}

// firstLine is that of a small file of the kernel, "" where it cannot be read.
func firstLine(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return string(line)
}
