package auth

import (
	"context"
	"net"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// AddressKey is the metadata in which this process's gateway passes on from which
// address a call comes. Only connections in memory may say so.
const AddressKey = "starling-address"

// Principal is who a call is charged to: who its token names and, in development
// mode, the address that it came from.
func Principal(ctx context.Context) string {
	if c := CallerOf(ctx); c.Named() {
		return c.Principal()
	}
	return Address(ctx)
}

// Address is the address that a call came from, without the port; empty if it is not
// known.
func Address(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	if p.Addr.Network() == "bufconn" {
		if from := metadata.ValueFromIncomingContext(ctx, AddressKey); len(from) > 0 {
			return hostOf(from[0])
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
