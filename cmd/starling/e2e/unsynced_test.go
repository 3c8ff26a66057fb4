package e2e

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/fleetsim"
	child "github.com/starling-fleet/starling/loadtest/process"
)

// A log without fsync that was killed may have lost what it acknowledged. It
// serves again in a new epoch, with vehicles unknown until they report.
func TestAnUnsyncedLogServesAgainAfterAKill(t *testing.T) {
	t.Parallel()
	addresses, err := child.FreeAddresses()
	require.NoError(t, err)
	up := child.New(child.Spec{
		Name: "up",
		Command: append([]string{binary(t), "up", "--partitions", "4", "--local-sync=false",
			"--local-directory", filepath.Join(t.TempDir(), "log"), "--tracker-checkpoint-interval", "200ms"}, addresses.Args()...),
		Admin: addresses.Admin,
	})
	t.Cleanup(up.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	report := func(seed int64) {
		sim := fleetsim.DefaultOptions()
		sim.Fleet.Vehicles, sim.Fleet.Seed = 20, seed
		sim.Ingest, sim.Duration, sim.FlatOut = connect(t, addresses.Ingest), time.Minute, true
		sent, err := fleetsim.Run(ctx, sim)
		require.NoError(t, err)
		require.Zero(t, sent.Client.PendingReports)
	}

	require.NoError(t, up.Start())
	_, err = up.WaitReady(ctx)
	require.NoError(t, err)
	report(1)
	fleet := dial(t, addresses.Matcher)
	require.Eventually(t, func() bool { return len(fleetOf(t, fleet)) == 20 }, time.Minute, 20*time.Millisecond)
	up.Kill()

	require.NoError(t, up.Start())
	_, err = up.WaitReady(ctx)
	require.NoError(t, err)
	report(2)
	fleet = dial(t, addresses.Matcher)
	require.Eventually(t, func() bool { return len(fleetOf(t, fleet)) == 20 }, time.Minute, 20*time.Millisecond)
	require.NoError(t, up.Stop(ctx))
}
