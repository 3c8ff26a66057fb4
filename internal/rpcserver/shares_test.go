package rpcserver_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/auth/mint"
	"github.com/starling-fleet/starling/internal/rpcserver"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// names gives tokens, and a guard that believes them.
type names struct {
	t     *testing.T
	key   *mint.Key
	guard *auth.Guard
}

func newNames(t *testing.T) *names {
	t.Helper()
	n := &names{t: t}
	cfg := auth.DefaultConfig()
	cfg.Issuer, cfg.DevSecretFile = "test", filepath.Join(t.TempDir(), "secret")
	secret := []byte(strings.Repeat("5a", 32))
	require.NoError(t, os.WriteFile(cfg.DevSecretFile, secret, 0o600))
	var err error
	n.key, err = mint.NewKey(secret)
	require.NoError(t, err)
	n.guard, err = auth.New(cfg, auth.Deps{Dev: true, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	require.NoError(t, n.guard.Start(t.Context()))
	return n
}

func (n *names) bearer(subject string) string {
	n.t.Helper()
	token, err := n.key.Sign(mint.Token{Issuer: "test", Audience: auth.DefaultConfig().Audience, Subject: subject, Scope: "dispatch", Until: time.Now().Add(time.Hour)})
	require.NoError(n.t, err)
	return "Bearer " + token
}

// However many connections a caller leaves its answers unread on, it uses up no more
// than its share, and nobody else is refused: not in the first moment either.
func TestWhoLeavesAnswersUnreadTakesNothingFromOthers(t *testing.T) {
	n := newNames(t)
	var atWork, most atomic.Int64
	r := startGuarded(t, n.guard, answering(2*mib, &atWork, &most), time.Second, func(c *rpcserver.Config) {
		c.UnreadBytes = 24 * mib
	})
	ctx, stop := context.WithCancel(metadata.AppendToOutgoingContext(t.Context(), "authorization", n.bearer("honest")))
	defer stop()
	var served atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if _, err := r.client.ListVehicles(ctx, &starlingv1.ListVehiclesRequest{}, grpc.MaxCallRecvMsgSize(8*mib)); err == nil {
				served.Add(1)
			} else if ctx.Err() == nil {
				t.Errorf("who reads was refused: %v", err)
				break
			}
		}
	}()
	const connections, each = 20, 10
	sent := 0
	for range connections {
		c := dialRaw(t, r.addr, true)
		c.authorization = n.bearer("attacker")
		for range each {
			if _, err := c.call(listVehicles, &starlingv1.ListVehiclesRequest{}); err != nil {
				break // disconnected already
			}
			sent++
		}
	}
	// Each of the attacker's calls is refused, or its answer left unread.
	const unread = "starling_rpc_unread_bytes"
	highest := 0.0
	require.Eventually(t, func() bool {
		highest = max(highest, metric(t, r.registry, unread))
		return metric(t, r.registry, "starling_rpc_refused_calls_total", "reason", "ANSWERS_UNREAD") > float64(sent)/2 && served.Load() >= 5
	}, patience, time.Millisecond)
	stop()
	<-ended
	// Half of the budget, and what was at work when it was used up: an answer for
	// each CPU.
	require.LessOrEqual(t, highest, float64(24*mib))
}

// With several who leave answers unread the budget is used up, and they have to go
// before anybody is refused who has left nothing.
func TestManyWhoLeaveAnswersUnreadGoFirst(t *testing.T) {
	n := newNames(t)
	var atWork, most atomic.Int64
	r := startGuarded(t, n.guard, answering(2*mib, &atWork, &most), time.Second, func(c *rpcserver.Config) {
		c.UnreadBytes, c.SendTimeout = 8*mib, time.Hour
	})
	honest := metadata.AppendToOutgoingContext(within(t), "authorization", n.bearer("honest"))
	for i := range 8 {
		c := dialRaw(t, r.addr, true)
		c.authorization = n.bearer(strings.Repeat("x", i+1))
		if _, err := c.call(listVehicles, &starlingv1.ListVehiclesRequest{}); err != nil {
			break
		}
		_, err := r.client.ListVehicles(honest, &starlingv1.ListVehiclesRequest{}, grpc.MaxCallRecvMsgSize(8*mib))
		require.NoError(t, err, "after %d", i)
	}
}
