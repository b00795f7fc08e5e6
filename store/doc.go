// Package store keeps what a device has seen and what it runs, in one folder:
//
//	store.lock                   one process has the folder open
//	state.db                     which model is live, verdicts, commands, messages that wait (State)
//	samples.db                   pictures worth learning from, bounded by bytes and age (Samples)
//	models/<sha256>.safetensors  weights, named by their digest, each with a receipt beside it (Models)
//
// The databases are bbolt files. What they hold is on docs/formats/state.md and docs/formats/samples.md.
//
// A file that is damaged, or was written by a newer program, is set aside at opening and a new one begun:
// [Store.Alarms] tells. All methods may be called from several goroutines.
package store
