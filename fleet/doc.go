// Package fleet is the MQTT contract of Fovea, device side and operator side:
// topics, payloads, the life cycle of a remote command, Home Assistant
// discovery and an embedded broker for a first run. docs/mqtt.md is the page
// for people who read or write these messages without this package.
//
// # Who runs what
//
// A [Device] is one daemon's presence on a broker. [Device.Run] owns the
// connection, one goroutine publishes, one judges arriving commands, each
// accepted command runs its verb's handler in a goroutine of its own. Every
// method of a Device may be called from any goroutine and none of them waits
// for the network: state topics keep only their newest value, events and
// command results go through a bounded [Queue].
//
// # What survives
//
// [Queue] and [CommandLog] are where durability comes in: with a store on disk
// events survive a restart and no command runs twice, also across a crash.
// [NewQueue] and [NewCommandLog] keep them in memory.
package fleet
