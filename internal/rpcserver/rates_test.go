package rpcserver

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/rpcstatus"
)

// Callers, riders among them, and addresses are held to their rates by a clock;
// services of ours do not count as the address they call from.
func TestCallRates(t *testing.T) {
	c := DefaultConfig()
	c.CallerCallsPerSec, c.RiderCallsPerSec, c.AddressCallsPerSec, c.CallBurst = 20, 5, 100, 2*time.Second
	require.NoError(t, c.Validate())
	now := time.Unix(1000, 0)
	r := newRates(&c, func() time.Time { return now })
	call := func(address string, caller *auth.Caller) error {
		ctx := peer.NewContext(context.Background(), &peer.Peer{Addr: &net.TCPAddr{IP: net.ParseIP(address), Port: 4711}})
		return r.take(ctx, caller)
	}
	spend := func(address string, caller *auth.Caller) (n int) {
		for ; n < 10_000; n++ {
			err := call(address, caller)
			if err == nil {
				continue
			}
			require.Equal(t, codes.ResourceExhausted, status.Code(err))
			require.Equal(t, "TOO_MANY_CALLS", rpcstatus.ReasonOf(err))
			var waits bool
			for _, d := range status.Convert(err).Details() {
				if i, ok := d.(*errdetails.RetryInfo); ok {
					waits = i.GetRetryDelay().AsDuration() > 0
				}
			}
			require.True(t, waits)
			return n
		}
		return n
	}
	dispatcher := func(name string) *auth.Caller {
		return &auth.Caller{Issuer: "us", Subject: name, Scopes: auth.Dispatch}
	}
	rider := &auth.Caller{Issuer: "us", Subject: "rider", Scopes: auth.Rider}
	require.Equal(t, 40, spend("10.0.0.1", dispatcher("a")))
	require.Zero(t, spend("10.0.0.2", dispatcher("a")), "wherever it calls from")
	require.Equal(t, 10, spend("10.0.0.1", rider))
	require.Equal(t, 40, spend("10.0.0.1", dispatcher("b")))
	require.Equal(t, 200-40-10-40, spend("10.0.0.1", &auth.Caller{}), "what is left of the address")
	now = now.Add(time.Second)
	require.Equal(t, 20, spend("10.0.0.1", dispatcher("a")))

	service := &auth.Caller{Issuer: "us", Subject: "fan-out", Scopes: auth.Service}
	c.CallerCallsPerSec = 0
	r = newRates(&c, func() time.Time { return now })
	require.Equal(t, 10_000, spend("10.0.0.3", service))
	c.AddressCallsPerSec = 0
	r = newRates(&c, func() time.Time { return now })
	require.Equal(t, 10_000, spend("10.0.0.4", &auth.Caller{}), "no limit")
}
