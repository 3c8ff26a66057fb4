package rpcserver

import (
	"context"
	"net"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/starling-fleet/starling/internal/auth"
)

// CallerKey is the metadata in which this process's gateway passes on whose call
// it makes. Only connections in memory may state it.
const CallerKey = "starling-caller"

// principal is who a call is charged to: who its token names and, in development
// mode, the address that it came from, without the port.
func principal(ctx context.Context) string {
	if c := auth.CallerOf(ctx); c.Named() {
		return c.Issuer + "\x00" + c.Subject
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	if p.Addr.Network() == "bufconn" {
		if from := metadata.ValueFromIncomingContext(ctx, CallerKey); len(from) > 0 {
			return from[0]
		}
	}
	return hostOf(p.Addr.String())
}

// hostOf is an address without its port.
func hostOf(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}
