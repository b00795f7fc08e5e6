// Package capture brings the pictures of cameras into the daemon.
//
// Every source (a video file, an RTSP or HTTP stream, a V4L2 device, a
// GStreamer pipeline, a folder of pictures) is decoded by a child process of
// its own, fovea-grab. The child blanks the privacy areas, scales down, looks
// at the picture's quality and motion, and writes frames to a pipe. This
// package is the parent's side: it starts the child, judges when it has
// stalled, grown or broken, kills it, and starts it again with back-off. No
// decoder can take the daemon or another camera down.
//
// # Concurrency
//
// A [Camera] owns one supervising goroutine and, while a grabber runs, two
// short-lived ones (its log, its memory). Frames are handed over in a slot of
// capacity 1 in which the newest wins; what is overwritten is counted in
// [State].Dropped. All methods of Camera may be called from any goroutine.
package capture
