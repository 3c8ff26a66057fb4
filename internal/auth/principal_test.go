package auth_test

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/starling-fleet/starling/internal/auth"
)

type memoryAddr struct{}

func (memoryAddr) Network() string { return "bufconn" }
func (memoryAddr) String() string  { return "bufconn" }

// Only the process's own gateway may say whose call it makes.
func TestPrincipal(t *testing.T) {
	from := func(addr net.Addr, caller string) string {
		ctx := peer.NewContext(t.Context(), &peer.Peer{Addr: addr})
		if caller != "" {
			ctx = metadata.NewIncomingContext(ctx, metadata.Pairs(auth.AddressKey, caller))
		}
		return auth.Principal(ctx)
	}
	outside := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 4711}
	require.Equal(t, "10.0.0.7", from(outside, ""))
	require.Equal(t, "10.0.0.7", from(outside, "10.9.9.9"), "a stranger's header")
	require.Equal(t, "10.9.9.9", from(memoryAddr{}, "10.9.9.9"))
	require.Equal(t, "bufconn", from(memoryAddr{}, ""))
	require.Empty(t, auth.Principal(context.Background()))
	named := auth.WithCaller(peer.NewContext(t.Context(), &peer.Peer{Addr: outside}), &auth.Caller{Issuer: "us", Subject: "rider-7"})
	require.Equal(t, "us\nrider-7", auth.Principal(named), "wherever they call from")
}
