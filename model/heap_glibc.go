//go:build linux && cgo

package model

// #include <malloc.h>
// #ifdef __GLIBC__
// static void bound(void) {
//	mallopt(M_ARENA_MAX, 1);
//	mallopt(M_MMAP_THRESHOLD, 256 << 10);
// }
// static void trim(void) { malloc_trim(0); }
// #else
// static void bound(void) {}
// static void trim(void) {}
// #endif
import "C"

import "runtime/debug"

// boundHeap keeps what XLA allocates in one arena, and large buffers out of it. Each of its threads had one of its
// own: three steps left 700 MB in them that nobody used.
func boundHeap() { C.bound() }

// TrimHeap gives memory that is free back to the system, Go's and XLA's. Compiling a step leaves hundreds of MB.
func TrimHeap() {
	debug.FreeOSMemory()
	C.trim()
}
