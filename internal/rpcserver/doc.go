// Package rpcserver is the one gRPC server of Starling, for every role: options,
// limits, metrics by method and code, recovery from panics, health tied to
// readiness, reflection, and a stop that drains. A role brings its service and
// what is special about its traffic.
//
// Imported by cmd/starling/app and by what measures servers; imports no role.
package rpcserver
