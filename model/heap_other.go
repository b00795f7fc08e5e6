//go:build !(linux && cgo)

package model

import "runtime/debug"

func boundHeap() {}

// TrimHeap gives memory that is free back to the system.
func TrimHeap() { debug.FreeOSMemory() }
