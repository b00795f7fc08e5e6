//go:build !(linux && cgo)

package model

import "runtime/debug"

// BoundHeap does nothing here: it is for glibc.
func BoundHeap(int) {}

// TrimHeap gives memory that is free back to the system.
func TrimHeap() { debug.FreeOSMemory() }
