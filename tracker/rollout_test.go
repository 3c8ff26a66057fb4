package tracker_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker"
	"github.com/starling-fleet/starling/tracker/step"
)

// doubtful is the filter of a step version that only tests carry: it is half as
// sure of where a vehicle is. Its own digest is the shipped filter's, so only
// the golden log distinguishes the two.
type doubtful struct{ step.Filter }

func (f doubtful) Step(s *gpsfilter.State, fix gpsfilter.Fix) gpsfilter.Estimate {
	e := f.Filter.Step(s, fix)
	e.VarEastM2, e.VarNorthM2 = 4*e.VarEastM2, 4*e.VarNorthM2
	return e
}

// nextVersion is the version after the newest, which only tests carry.
const nextVersion = step.Newest + 1

// withNext are the versions of the binary after this one.
func withNext() step.Versions {
	return append(step.Carried(), step.Version{
		Number: nextVersion,
		NewFilter: func(c gpsfilter.Config) (step.Filter, error) {
			f, err := gpsfilter.New(c)
			return doubtful{f}, err
		},
		Outcomes: true,
	})
}

// rollout is what a test of two versions drives: trackers of both binaries over
// one log of several partitions.
type rollout struct {
	t     *testing.T
	store *memlog.Store
	log   *memlog.Log
	sent  int
}

const rolloutPartitions = 4

func newRollout(t *testing.T) *rollout {
	store := memlog.NewStore(rolloutPartitions, topics.All(), 10*time.Second)
	return &rollout{t: t, store: store, log: open(t, store, memlog.Options{})}
}

// start starts a tracker in a process of its own, of this binary or the next.
func (f *rollout) start(next bool) *running {
	tr, err := tracker.New(tracker.DefaultConfig(), tracker.Deps{Log: open(f.t, f.store, memlog.Options{}), Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(f.t, err)
	if next {
		tr.Carry(withNext())
	}
	return runTracker(f.t, tr)
}

// drive sends reports to all partitions for so many seconds.
func (f *rollout) drive(seconds int) {
	for range seconds {
		for v := range 12 {
			f.sent++
			now := time.Now().UnixMilli()/second*second - int64(v%3)*second
			r := wire.Report{SessionID: 1, Sequence: int64(f.sent), Fixes: []wire.Fix{
				{DeviceTimeMS: now, LatDeg: 30.27 + float64(v), LonDeg: -97.74 + float64(now%hour)*1e-9},
			}}
			f.append(int32(v%rolloutPartitions), fmt.Sprint("v-", v), (&wire.Location{Kind: wire.KindReport, Report: r}).Append(nil))
		}
		time.Sleep(time.Second)
	}
}

func (f *rollout) append(partition int32, key string, value []byte) {
	require.NoError(f.t, f.log.Append(f.t.Context(), topics.Locations, partition, eventlog.Record{Key: []byte(key), Value: value}, ignore{}))
}

// activate appends a switch to all partitions.
func (f *rollout) activate(next bool) {
	version := int32(step.Newest)
	if next {
		version = nextVersion
	}
	l, err := withNext().NewVersionSwitch(version, step.DefaultSettings())
	require.NoError(f.t, err)
	value := l.Append(nil)
	for p := range int32(rolloutPartitions) {
		f.append(p, "", value)
	}
}

// requireUndisturbed compares `tracks` of every partition with what one
// partition of the next binary makes of the whole log, and returns how many
// records each version has stepped.
func (f *rollout) requireUndisturbed() map[int32]int {
	f.t.Helper()
	steps := map[int32]int{}
	for number := range int32(rolloutPartitions) {
		all := withNext()
		next := len(all) - 1
		carried := slices.Concat(all[next:], all[:next]) // a partition starts with the last: this binary's newest
		p, err := carried.NewPartition(step.DefaultSettings(), 0)
		require.NoError(f.t, err)
		tracks := map[int64]string{}
		for _, rec := range f.store.Records(topics.Tracks, number) {
			var track wire.Track
			require.NoError(f.t, track.Unmarshal(rec.Value))
			if first, repeated := tracks[track.SourceOffset]; repeated {
				require.Equal(f.t, first, string(rec.Value))
			}
			tracks[track.SourceOffset] = string(rec.Value)
		}
		_, resume := f.store.State(spec, number)
		records := f.store.Records(topics.Locations, number)
		require.GreaterOrEqual(f.t, resume, int64(len(records)-1), "all but a last tick was stepped")
		require.Len(f.t, tracks, int(resume))
		for _, rec := range records[:resume] {
			r, err := p.Step(step.Record(rec))
			require.NoError(f.t, err)
			require.Equal(f.t, string(r.Track.Append(nil)), tracks[rec.Offset], "partition %d offset %d", number, rec.Offset)
			steps[p.Version()]++
		}
	}
	return steps
}

// Old and new binaries serve side by side until the switch; then only the new
// ones do. After a switch back the old ones may serve again.
func TestRollingDeploymentOfAVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newRollout(t)
		old := []*running{f.start(false), f.start(false)}
		f.drive(15)
		young := f.start(true) // three share the partitions, two binaries
		f.drive(15)
		old[0].stop()
		f.drive(15)
		second := f.start(true)
		f.drive(15)

		f.activate(true) // one old tracker was forgotten
		f.drive(15)
		requireGivenBack(t, old[1])
		late := f.start(false) // and one is started that should not be
		f.drive(15)
		requireGivenBack(t, late)

		f.activate(false)
		f.drive(15)
		again := f.start(false)
		f.drive(15)
		young.stop()
		second.stop()
		f.drive(15)
		again.stop()

		steps := f.requireUndisturbed()
		require.Greater(t, steps[step.Newest], 12*60)
		require.Greater(t, steps[nextVersion], 12*25)
	})
}

// requireGivenBack waits for the end of a tracker that met a version which it
// does not know.
func requireGivenBack(t *testing.T, r *running) {
	t.Helper()
	var err error
	select {
	case err = <-r.ended:
	case <-time.After(time.Minute):
		require.Fail(t, "a tracker goes on without knowing the version")
	}
	var unknown *step.UnknownVersionError
	require.ErrorAs(t, err, &unknown)
	require.Equal(t, int32(nextVersion), unknown.StepVersion)
	require.ErrorContains(t, err, "asks for step version 4, which this binary (it carries [2 3]) can't serve")
	require.True(t, strings.Contains(err.Error(), "partition "), err)
}
