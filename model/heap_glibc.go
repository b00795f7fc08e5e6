//go:build linux && cgo

package model

// #include <malloc.h>
// #ifdef __GLIBC__
// static void bound(int large) {
//	mallopt(M_ARENA_MAX, 1);
//	mallopt(M_MMAP_THRESHOLD, large);
//	mallopt(M_TRIM_THRESHOLD, 64 << 20);
// }
// static void trim(void) { malloc_trim(0); }
// #else
// static void bound(int large) {}
// static void trim(void) {}
// #endif
import "C"

import "runtime/debug"

// BoundHeap keeps what XLA allocates in one arena: each of its threads had one of its own, and three steps left 700 MB
// in them that nobody used. Buffers of large bytes and more are mapped one by one and go back to the system at once;
// smaller ones are used again, since touching new pages costs a pass a tenth of its time. PassBuffer is set when a
// backend opens.
func BoundHeap(large int) { C.bound(C.int(large)) }

// TrimHeap gives memory that is free back to the system, Go's and XLA's. Compiling a step leaves hundreds of MB.
func TrimHeap() {
	debug.FreeOSMemory()
	C.trim()
}
