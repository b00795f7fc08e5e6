package model

// Sizes for BoundHeap, bytes.
const (
	PassBuffer = 8 << 20 // forward passes: all that one needs is kept
	StepBuffer = 2 << 20 // steps, whose buffers are ten times as large and not all needed at once
)

// LargePages is a setting for the environment of a program that takes steps: glibc from 2.35 on then asks for pages of
// 2 MiB where the system grants them on request. Steps take a tenth less time; the C library reads it as it starts.
const LargePages = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1"
