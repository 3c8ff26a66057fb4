package step_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/locallog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/tracker/step"
)

// BenchmarkCheckpoint is the CPU of a whole checkpoint on the local log, per
// vehicle: the snapshot, its encoding, its way to disk and what the store does in the
// background to keep it. Divided by the fixes that a vehicle reports within
// tracker.checkpoint_interval it is the cost for each fix. Run it for some
// hundred thousand vehicles at least (-benchtime 400000x), so that the store's
// compactions are in it.
func BenchmarkCheckpoint(b *testing.B) {
	const fleets, perFleet = 8, 2500
	cfg := locallog.DefaultConfig()
	cfg.Directory, cfg.Partitions, cfg.LowWaterFreeBytes = b.TempDir(), fleets, 64<<20
	log, err := locallog.Open(cfg, topics.All(), prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	require.NoError(b, err)
	defer func() { require.NoError(b, log.Close()) }()
	claims, release := own(b, log, fleets)
	defer release()

	// The steps run on this thread, whose time is taken off.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	partitions, traffic := make([]*step.Partition, fleets), make([]*fleet, fleets)
	for i := range fleets {
		partitions[i], traffic[i] = newPartition(b), newFleet(perFleet, 1)
		for j, id := range traffic[i].ids {
			traffic[i].ids[j] = fmt.Appendf(id, "-%d", i)
		}
		for range windowFixes + 5 {
			stepRound(b, partitions[i], traffic[i])
		}
	}
	var buffer []byte
	var bytes int
	var stepping time.Duration
	before := cpuTime()
	b.ResetTimer()
	n := 0
	for turn := 0; n < b.N; turn++ {
		i := turn % fleets
		started := threadTime(b)
		stepRound(b, partitions[i], traffic[i])
		stepping += threadTime(b) - started
		snapshot := partitions[i].Snapshot(buffer, nil)
		changes := make([]eventlog.Record, len(snapshot.Changes))
		for k, change := range snapshot.Changes {
			changes[k] = eventlog.Record(change)
		}
		require.NoError(b, claims[i].Checkpoint(context.Background(), changes, snapshot.Resume))
		buffer, bytes = snapshot.Buffer, len(snapshot.Buffer)
		n += perFleet
	}
	b.ReportMetric(float64(cpuTime()-before-stepping)/float64(n), "cpu-ns/vehicle")
	b.ReportMetric(float64(bytes)/perFleet, "B/vehicle")
}

func stepRound(b *testing.B, p *step.Partition, f *fleet) {
	f.round()
	for _, rec := range f.records {
		_, err := p.Step(rec)
		require.NoError(b, err)
	}
}

// own claims all partitions until release is called.
func own(b *testing.B, log eventlog.Log, partitions int) (claims []eventlog.Claim, release func()) {
	ctx, cancel := context.WithCancel(context.Background())
	given, ended := make(chan eventlog.Claim), make(chan error, 1)
	spec := eventlog.OwnSpec{Group: "bench", Source: topics.Locations, State: topics.TrackerState}
	go func() {
		ended <- log.Own(ctx, spec, func(ctx context.Context, c eventlog.Claim) error {
			if _, err := c.Load(ctx, func(_, _ []byte) error { return nil }); err != nil {
				return err
			}
			given <- c
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	claims = make([]eventlog.Claim, partitions)
	for range partitions {
		c := <-given
		claims[c.Partition()] = c
	}
	return claims, func() { cancel(); <-ended }
}

// threadTime is what this thread has used.
func threadTime(b *testing.B) time.Duration {
	const rusageThread = 1 // Linux
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(rusageThread, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
