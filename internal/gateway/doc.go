// Package gateway offers the gRPC services as JSON over HTTP/1.1, for browsers,
// curl and other clients without gRPC.
//
// A call becomes a gRPC call to the same server over a connection in memory, so
// that every rule, limit and status of the gRPC server holds here too. What is
// added is HTTP's own: bounds for bodies and times, JSON that is refused with
// the name of the faulty field, and CORS where it is configured. docs/json.md
// states the protocol.
package gateway
