package tracker_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker"
)

// What a step version computes never changes once it is out: trackers of two
// builds would disagree about one offset. The file has a line for each version:
// its number, the digest of its golden outputs, and settings to compute it by.
// -update adds the versions that are missing and changes no line. Whoever gets
// here by a change of the filter, the step or the state's encoding adds a version
// instead (docs/operations.md); only a version that no log was ever stepped by
// may be taken out of the file and be written anew.
func TestWhatAVersionComputesIsPinned(t *testing.T) {
	const path = "testdata/step_versions.pinned"
	pinned, err := os.ReadFile(path)
	require.NoError(t, err)
	known := map[int32]bool{}
	lines := bufio.NewScanner(bytes.NewReader(pinned))
	for lines.Scan() {
		var version int32
		var digest, encoded string
		_, err := fmt.Sscan(lines.Text(), &version, &digest, &encoded)
		require.NoError(t, err, lines.Text())
		known[version] = true
		settings, err := tracker.DecodeSettings([]byte(encoded))
		require.NoError(t, err)
		require.Equal(t, encoded, string(settings.Encode()),
			"a setting was added or renamed: a binary of before could not read the checkpoints of this one; give a new setting `omitzero`")
		got, err := tracker.GoldenDigest(version, settings)
		require.NoError(t, err)
		require.Equal(t, digest, hex.EncodeToString(got), "step version %d computes something else now: restore it and add a new version (docs/operations.md)", version)
	}
	require.NoError(t, lines.Err())
	versions := tracker.StepVersions()
	require.Equal(t, int32(tracker.StepVersion), versions[len(versions)-1])
	for _, version := range versions {
		if *update && !known[version] {
			settings := tracker.DefaultConfig().StepSettings()
			digest, err := tracker.GoldenDigest(version, settings)
			require.NoError(t, err)
			pinned = fmt.Appendf(pinned, "%d %x %s\n", version, digest, settings.Encode())
			require.NoError(t, os.WriteFile(path, pinned, 0o644))
			continue
		}
		require.True(t, known[version], "step version %d is not pinned: run go test ./tracker -run Pinned -update", version)
	}
}

func TestASwitchNamesAVersionThatTheBinaryCarries(t *testing.T) {
	_, err := tracker.NewVersionSwitch(tracker.NextStepVersion, tracker.DefaultConfig().StepSettings())
	require.ErrorContains(t, err, "this binary carries [1]")
	broken := tracker.DefaultConfig().StepSettings()
	broken.WindowMaxFixes = 0
	_, err = tracker.NewVersionSwitch(tracker.StepVersion, broken)
	require.ErrorContains(t, err, "window_max_fixes")
}

// A repeated switch is a record like a tick: whoever is not sure that a switch
// was appended may append it again.
func TestARepeatedSwitchChangesNothing(t *testing.T) {
	settings := tracker.DefaultConfig().StepSettings()
	settings.WindowMS = 10 * second
	l, err := tracker.NewVersionSwitch(tracker.StepVersion, settings)
	require.NoError(t, err)
	repeated, once := newPartitionOfEpoch(t, 1), newPartitionOfEpoch(t, 1)
	var offset int64
	step := func(p *tracker.Partition, key string, value []byte) []byte {
		r, err := p.Step(eventlog.Stored{Offset: offset, AppendTimeMS: noonMS + offset*second, Key: []byte(key), Value: value})
		require.NoError(t, err)
		require.NoError(t, r.Poison)
		return r.Track.Append(nil)
	}
	both := func(key string, first, second []byte) {
		require.Equal(t, step(once, key, first), step(repeated, key, second), "offset %d", offset)
		offset++
	}
	tick := (&wire.Location{Kind: wire.KindTick}).Append(nil)
	for i := range int64(120) {
		r := wire.Location{Kind: wire.KindReport, Report: wire.Report{SessionID: 1, Sequence: i + 1, Fixes: []wire.Fix{
			{DeviceTimeMS: noonMS + (offset-i%5)*second, LatDeg: 30.27, LonDeg: -97.74 + float64(i)*1e-5},
		}}}
		both(fmt.Sprint("v-", i%7), r.Append(nil), r.Append(nil))
		switch {
		case i == 30:
			both("", l.Append(nil), l.Append(nil))
		case i > 30 && i%25 == 0:
			both("", tick, l.Append(nil))
		}
	}
	require.Equal(t, once.Cut(nil).Changes, repeated.Cut(nil).Changes)
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
	tr, err := tracker.New(tracker.DefaultConfig(), open(f.t, f.store, memlog.Options{}), prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	require.NoError(f.t, err)
	if next {
		tr.CarryNext()
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
	value, err := tracker.NewSwitchToNext(tracker.DefaultConfig().StepSettings())
	require.NoError(f.t, err)
	if !next {
		l, err := tracker.NewVersionSwitch(tracker.StepVersion, tracker.DefaultConfig().StepSettings())
		require.NoError(f.t, err)
		value = l.Append(nil)
	}
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
		p, err := tracker.NewNextPartition(tracker.StepVersion, tracker.DefaultConfig().StepSettings(), 0)
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
			r, err := p.Step(rec)
			require.NoError(f.t, err)
			require.Equal(f.t, string(r.Track.Append(nil)), tracks[rec.Offset], "partition %d offset %d", number, rec.Offset)
			steps[p.StepVersion()]++
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
		require.Greater(t, steps[tracker.StepVersion], 12*60)
		require.Greater(t, steps[tracker.NextStepVersion], 12*25)
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
	var unknown *tracker.UnknownVersionError
	require.ErrorAs(t, err, &unknown)
	require.Equal(t, int32(tracker.NextStepVersion), unknown.StepVersion)
	require.ErrorContains(t, err, "asks for step version 2, which this binary (it carries [1]) can't serve")
	require.True(t, strings.Contains(err.Error(), "partition "), err)
}
