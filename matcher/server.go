package matcher

import (
	"runtime"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/matcher/query"
	"github.com/starling-fleet/starling/schemas/wire"
)

// MaxRequestBytes bounds a request: the largest that follows the rules has
// 10,000 cells of 15 characters, and labels.
const MaxRequestBytes = 256 << 10

// WindowBytes is the window of a stream.
const WindowBytes = MaxRequestBytes

// ServerOptions are the options of the gRPC server that serves the fleet.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(MaxRequestBytes),
		grpc.ForceServerCodecV2(wire.Codec()),
		// Requests are small: windows of a fixed size that one fits into spare the
		// connection the pings that would measure how large they should be, one
		// or more for every call.
		grpc.StaticStreamWindowSize(WindowBytes),
		grpc.StaticConnWindowSize(MaxRequestBytes),
		// A goroutine that is used again has the stack that a search needs; a new
		// one grows it step by step. Watch calls that keep a worker for
		// themselves only take that away: gRPC then starts goroutines as ever.
		grpc.NumStreamWorkers(uint32(4 * runtime.GOMAXPROCS(0))),
	}
}

// Register adds FleetService to a gRPC server.
func (m *Matcher) Register(r grpc.ServiceRegistrar) { query.Register(r, m) }
