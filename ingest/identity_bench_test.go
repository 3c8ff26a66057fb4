package ingest_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/auth/mint"
)

// BenchmarkIdentity is what it costs a report on a stream that the server knows who
// sends it (an EdDSA token, of which the vehicle of each report is compared with the
// pattern), and that it holds vehicles and callers to rates too: beside neither, 64
// vehicles in turn on each stream. Each b.N is a round in which all of them send, one
// right after the other and in turns who is first, so that what else the machine does
// meets all alike: the share is the median of the rounds', and the CPU time, the
// clients' included, the least.
func BenchmarkIdentity(b *testing.B) {
	guard, token := identity(b)
	for _, fixes := range []int{1, 5} {
		b.Run(fmt.Sprintf("fixes=%d", fixes), func(b *testing.B) {
			sides := []*driver{
				openDriver(b, serveIngest(b, auth.Open(), false), fixes, ""),
				openDriver(b, serveIngest(b, guard, false), fixes, token),
				openDriver(b, serveIngest(b, guard, true), fixes, token),
			}
			const reports = 4_000
			for _, d := range sides {
				d.run(reports) // everything is met once
			}
			used := make([][]float64, len(sides)) // CPU ns a report, by side and round
			round := 0
			for b.Loop() {
				for i := range sides {
					i = (i + round) % len(sides)
					used[i] = append(used[i], float64(sides[i].run(reports))/reports)
				}
				round++
			}
			b.ReportMetric(slices.Min(used[0]), "neither-ns")
			for i, name := range map[int]string{1: "token", 2: "token-and-rates"} {
				shares := make([]float64, round)
				for r := range shares {
					shares[r] = 100 * (used[i][r]/used[0][r] - 1)
				}
				slices.Sort(shares)
				b.ReportMetric(slices.Min(used[i]), name+"-ns")
				b.ReportMetric(shares[round/2], name+"-%")
			}
		})
	}
}

// identity is a guard that asks for tokens, and one.
func identity(b *testing.B) (*auth.Guard, string) {
	b.Helper()
	_, secret, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(b, err)
	key, err := mint.NewKey(secret)
	require.NoError(b, err)
	public, err := mint.Public(secret)
	require.NoError(b, err)
	cfg := auth.DefaultConfig()
	cfg.Issuer, cfg.KeysFile = "bench", filepath.Join(b.TempDir(), "keys.pem")
	require.NoError(b, os.WriteFile(cfg.KeysFile, public, 0o600))
	guard, err := auth.New(cfg, auth.Deps{Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	require.NoError(b, guard.Start(context.Background()))
	token, err := key.Sign(mint.Token{Issuer: "bench", Audience: "starling", Subject: "gateway", Scope: "report", Vehicle: "vehicle-*", Until: time.Now().Add(time.Hour)})
	require.NoError(b, err)
	return guard, token
}
