package step_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
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
		settings, err := step.DecodeSettings([]byte(encoded))
		require.NoError(t, err)
		require.Equal(t, encoded, string(settings.Encode()),
			"a setting was added or renamed: a binary of before could not read the checkpoints of this one; give a new setting `omitzero`")
		got, err := step.GoldenDigest(version, settings)
		require.NoError(t, err)
		require.Equal(t, digest, hex.EncodeToString(got), "step version %d computes something else now: restore it and add a new version (docs/operations.md)", version)
	}
	require.NoError(t, lines.Err())
	versions := step.Carried().Numbers()
	require.Equal(t, int32(step.Newest), versions[len(versions)-1])
	for _, version := range versions {
		if *update && !known[version] {
			settings := step.DefaultSettings()
			digest, err := step.GoldenDigest(version, settings)
			require.NoError(t, err)
			pinned = fmt.Appendf(pinned, "%d %x %s\n", version, digest, settings.Encode())
			require.NoError(t, os.WriteFile(path, pinned, 0o644))
			continue
		}
		require.True(t, known[version], "step version %d is not pinned: run go test ./tracker/step -run Pinned -update", version)
	}
}

func TestASwitchNamesAVersionThatTheBinaryCarries(t *testing.T) {
	_, err := step.NewVersionSwitch(step.Newest+1, step.DefaultSettings())
	require.ErrorContains(t, err, "this binary carries [2 3]")
	broken := step.DefaultSettings()
	broken.WindowMaxFixes = 0
	_, err = step.NewVersionSwitch(step.Newest, broken)
	require.ErrorContains(t, err, "window_max_fixes")
}

// A repeated switch is a record like a tick: whoever is not sure that a switch
// was appended may append it again.
func TestARepeatedSwitchChangesNothing(t *testing.T) {
	settings := step.DefaultSettings()
	settings.WindowMS = 10 * second
	l, err := step.NewVersionSwitch(step.Newest, settings)
	require.NoError(t, err)
	repeated, once := newPartition(t), newPartition(t)
	var offset int64
	step := func(p *step.Partition, key string, value []byte) []byte {
		r, err := p.Step(step.Record{Offset: offset, AppendTimeMS: noonMS + offset*second, Key: []byte(key), Value: value})
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
	require.Equal(t, once.Snapshot(nil, nil).Changes, repeated.Snapshot(nil, nil).Changes)
}
