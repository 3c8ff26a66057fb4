package cli

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker"
	"github.com/starling-fleet/starling/tracker/step"
)

func (b *logBench) activate(code int, args ...string) activation {
	b.t.Helper()
	var a activation
	got := b.run(code, append([]string{"topics", "activate", "--json"}, args...)...)
	readJSON(b.t, got.out, &a)
	require.Len(b.t, a.Partitions, b.cfg.Partitions)
	return a
}

func TestActivateSwitchesEveryPartition(t *testing.T) {
	onBothLogs(t, func(t *testing.T, b *logBench) {
		b.open(func(log *openLog) {
			b.append(log, topics.Locations, 0, "v-1", reportOf(1, 1, time.Now().UnixMilli()))
			b.append(log, topics.Locations, 1, "v-2", reportOf(1, 1, time.Now().UnixMilli()))
		})
		for _, p := range b.activate(exitOK, "--dry-run").Partitions {
			require.Nil(t, p.InForce, "no tracker has served yet")
		}
		b.track()
		for _, p := range b.activate(exitOK, "--dry-run").Partitions {
			require.Equal(t, int32(step.Newest), p.InForce.StepVersion)
			require.Empty(t, p.Changes)
		}
		other := []string{"--tracker-window", "20s", "--tracker-filter-min-accuracy-m", "2"}
		for _, p := range b.activate(exitOK, append(other, "--dry-run")...).Partitions {
			require.Equal(t, []string{"filter.MinAccuracyM: 1 -> 2", "window_ms: 30000 -> 20000"}, p.Changes)
			require.Nil(t, p.Offset)
		}
		require.Contains(t, b.run(exitOK, append([]string{"topics", "activate", "--dry-run"}, other...)...).out, "window_ms: 30000 -> 20000")

		done := b.activate(exitOK, append(other, "--yes")...)
		for _, p := range done.Partitions {
			require.NotNil(t, p.Offset)
		}
		b.activate(exitOK, append(other, "--yes")...) // and again, as after a run that failed halfway
		b.track()                                     // by a tracker that is configured otherwise
		for _, p := range b.activate(exitOK, append(other, "--dry-run")...).Partitions {
			require.Empty(t, p.Changes)
			require.Greater(t, p.InForce.AsOfOffset, *done.Partitions[p.Partition].Offset)
		}
		require.Contains(t, b.run(exitOK, "topics", "activate", "--yes").out, "SWITCH AT OFFSET") // and back
	})
}

func TestActivateIsRefused(t *testing.T) {
	for want, args := range map[string][]string{
		"either --dry-run": {},
		"or --yes":         {"--dry-run", "--yes"},
		"carries [2 3]":    {"--yes", "--step-version", "99"},
		"window":           {"--yes", "--tracker-window", "-1s"},
	} {
		got := runCLI(t, t.Context(), "", append([]string{"topics", "activate"}, args...)...)
		require.Equal(t, exitUsage, got.code, got.err)
		require.Contains(t, got.err, want)
	}
}

// Partitions that may lack the switch are named, and a repetition reaches them.
func TestActivateNamesWhatIsMissing(t *testing.T) {
	broken := true
	store := memlog.NewStore(4, topics.All(), time.Second)
	log := memlog.Open(store, memlog.Options{BeforeAppend: func(_ string, partition int32, _ eventlog.Record) error {
		if broken && partition%2 == 1 {
			return errors.New("the leader is away")
		}
		return nil
	}})
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	opened := &openLog{Log: log, cfg: app.DefaultConfig(), patience: time.Minute}
	record, err := step.NewVersionSwitch(step.Newest, tracker.DefaultConfig().StepSettings(topics.DefaultPartitions))
	require.NoError(t, err)
	out, err := activate(t.Context(), opened, record)
	require.ErrorContains(t, err, "2 of 4 partitions may lack the switch, repeat the command: partitions 1, 3: the leader is away")
	require.NotNil(t, out[0].Offset)
	require.Equal(t, "the leader is away", out[3].Error)
	broken = false
	_, err = activate(t.Context(), opened, record)
	require.NoError(t, err)
	for p := range int32(4) {
		for _, rec := range store.Records(topics.Locations, p) {
			var l wire.Location
			require.NoError(t, l.Unmarshal(rec.Value))
			require.Equal(t, wire.KindVersionSwitch, l.Kind)
		}
		require.NotEmpty(t, store.Records(topics.Locations, p))
	}
}
