package row_test

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

const startMS = 1_700_000_000_000

// steps runs reports of one vehicle through the tracker's step, each stamped by the
// log when its fix was taken, and returns the rows of every record.
func steps(t *testing.T, reports ...[]wire.Fix) [][]row.Fix {
	p, err := step.NewPartition(step.DefaultSettings(), 7)
	require.NoError(t, err)
	var all [][]row.Fix
	stampMS := int64(startMS)
	for i, fixes := range reports {
		loc := wire.Location{Kind: wire.KindReport, Report: wire.Report{SessionID: 1, Sequence: int64(i + 1), Fixes: fixes}}
		stampMS = max(stampMS, fixes[0].DeviceTimeMS)
		res, err := p.Step(step.Record{Offset: int64(10 + i), AppendTimeMS: stampMS, Key: []byte("car"), Value: loc.Append(nil)})
		require.NoError(t, err)
		require.NoError(t, res.Poison)
		all = append(all, row.Append(nil, 3, "car", res.Track))
	}
	return all
}

func fixAt(seconds int64, latDeg float64) wire.Fix {
	return wire.Fix{
		DeviceTimeMS: startMS + seconds*1000, LatDeg: latDeg, LonDeg: -97.12345678, Has: wire.HasAccuracy | wire.HasSpeed | wire.HasHeading | wire.HasAltitude | wire.HasMocked,
		AccuracyM: 4.26, SpeedMPS: 13.456, HeadingDeg: 359.97, AltitudeM: -12.34, Mocked: true,
	}
}

func TestRowsOfTheStep(t *testing.T) {
	all := steps(t,
		[]wire.Fix{fixAt(0, 30.1)},
		[]wire.Fix{fixAt(1, 30.1001)},
		[]wire.Fix{fixAt(40, 30.104)}, // closes the windows of the first two
		[]wire.Fix{fixAt(2, 30.1002)}, // late
	)
	require.Len(t, all[0], 1)
	open := all[0][0]
	require.Equal(t, row.Fix{
		Vehicle: "car", DeviceTimeMS: startMS, Epoch: 7, Partition: 3, SourceOffset: 10, Kind: row.Open,
		Has: open.Has, Raw: row.Position{LatE7: 301_000_000, LonE7: -971_234_568}, RawSpeedCMPS: 1346, RawHeadingDDeg: 0, AccuracyDM: 43, AltitudeDM: -123, Mocked: true,
		Verdict: open.Verdict, Corrected: open.Corrected, Display: open.Display, SpeedCMPS: open.SpeedCMPS, HeadingDDeg: open.HeadingDDeg,
		Session: 1, Sequence: 1, ArrivalOffset: 10,
	}, open)
	require.NotZero(t, open.Has&row.HasEstimate)
	require.NotEqual(t, starlingv1.Verdict_VERDICT_UNSPECIFIED, open.Verdict)
	require.InDelta(t, open.Raw.LatE7, open.Corrected.LatE7, 100)
	require.Equal(t, []row.Kind{row.Open, row.Final, row.Final}, kinds(all[2]))
	require.Equal(t, int64(12), all[2][1].SourceOffset, "a final row names the record that closed the window")
	require.Equal(t, []row.Kind{row.Late}, kinds(all[3]))
	require.Zero(t, all[3][0].Has&row.HasEstimate)

	rows := row.Dedup(slices.Concat(all...))
	require.Equal(t, []row.Kind{row.Final, row.Final, row.Late, row.Open}, kinds(rows))
	first, ok := rows[0].Arrival()
	require.True(t, ok, "the final row has taken over by what the fix came")
	require.Equal(t, row.Arrival{Epoch: 7, Offset: 10, Session: 1, Sequence: 1}, first)
	alone := row.Dedup(slices.Clone(all[2][1:]))
	_, ok = alone[0].Arrival()
	require.False(t, ok)
}

func TestRowsOfWhatWasNotTaken(t *testing.T) {
	all := steps(t,
		[]wire.Fix{fixAt(0, 30.1), fixAt(0, 30.2)},               // a conflict
		[]wire.Fix{fixAt(0, 30.1), fixAt(0, 30.1), fixAt(1, 30)}, // two copies
		[]wire.Fix{fixAt(40, 30)},
		[]wire.Fix{fixAt(2, 30.3)}, // late
	)
	rows := row.Dedup(slices.Concat(append(all, all...)...))
	require.Equal(t, []row.Kind{row.Final, row.Conflict, row.Duplicate, row.Final, row.Late, row.Open}, kinds(rows), "what was published twice is there once, two equal copies by one record too")
	require.Equal(t, int32(302_000_000), rows[1].Raw.LatE7)
	require.Equal(t, starlingv1.OutcomeRule_OUTCOME_RULE_OTHER_CONTENT, rows[1].Rule)
	require.Equal(t, starlingv1.OutcomeRule_OUTCOME_RULE_SAME_CONTENT, rows[2].Rule)
	require.Equal(t, starlingv1.OutcomeRule_OUTCOME_RULE_BEHIND_WINDOW, rows[4].Rule)
	copied, ok := rows[2].Arrival()
	require.True(t, ok)
	require.Equal(t, row.Arrival{Epoch: 7, Offset: 11, Session: 1, Sequence: 2, Rule: rows[2].Rule, Reported: rows[0].Reported()}, copied)
	require.Equal(t, []row.Kind{row.Final, row.Final, row.Late, row.Open}, kinds(row.Truth(slices.Clone(rows))))
	require.Len(t, row.Arrivals(rows[:3]), 3)
}

// What does not stand is never the truth, whatever its epoch.
func TestARefusalStandsForNothing(t *testing.T) {
	r := row.Append(nil, 0, "v", &wire.Track{Epoch: 1, SessionID: 4, Outcomes: []wire.FixOutcome{{Rule: starlingv1.OutcomeRule_OUTCOME_RULE_PARTITION_FULL, Fix: fixAt(0, 1)}}})
	require.Equal(t, []row.Kind{row.Refused}, kinds(r))
	require.Empty(t, row.Truth(slices.Clone(r)))
	later := row.Append(nil, 0, "v", &wire.Track{Epoch: 2, LateFixes: []wire.Fix{fixAt(0, 1)}})
	require.Equal(t, []row.Kind{row.Late, row.Refused}, kinds(row.Dedup(slices.Concat(r, later))))
}

// Windows that time closes are published with another vehicle's record.
func TestRowsOfTimers(t *testing.T) {
	rows := row.Append(nil, 1, "own", &wire.Track{Epoch: 1, SourceOffset: 5, Fired: []wire.Fired{{VehicleID: "other", FinalPoints: []wire.TrackPoint{{Fix: wire.Fix{DeviceTimeMS: 9}}}}}})
	require.Len(t, rows, 1)
	require.Equal(t, "other", rows[0].Vehicle)
	require.Equal(t, row.Final, rows[0].Kind)
}

func TestTruthIsTheFirst(t *testing.T) {
	r := func(epoch, offset int64, k row.Kind) row.Fix {
		return row.Fix{Vehicle: "v", DeviceTimeMS: 1, Epoch: epoch, SourceOffset: offset, Kind: k}
	}
	for _, c := range []struct {
		name  string
		rows  []row.Fix
		truth int
	}{
		{"a final row replaces the open one", []row.Fix{r(1, 5, row.Open), r(1, 9, row.Final)}, 1},
		{"the first final row stands", []row.Fix{r(1, 12, row.Final), r(1, 9, row.Final)}, 1},
		{"an epoch before stands, though it was never closed", []row.Fix{r(2, 1, row.Final), r(1, 9, row.Open)}, 1},
		{"what was accepted stands before what was late", []row.Fix{r(1, 3, row.Late), r(1, 9, row.Open)}, 1},
	} {
		for range 2 {
			got := row.Dedup(slices.Clone(c.rows))
			require.Equal(t, []row.Fix{c.rows[c.truth]}, got, c.name)
			slices.Reverse(c.rows)
			c.truth = len(c.rows) - 1 - c.truth
		}
	}
}

func TestExtremesStayInRange(t *testing.T) {
	f := wire.Fix{LatDeg: -90, LonDeg: 180, Has: wire.HasAccuracy | wire.HasHeading | wire.HasSpeed, AccuracyM: math.MaxFloat32, HeadingDeg: 359.96, SpeedMPS: float32(math.NaN())}
	r := row.Append(nil, 0, "v", &wire.Track{LateFixes: []wire.Fix{f}})[0]
	require.Equal(t, row.Position{LatE7: -900_000_000, LonE7: 1_800_000_000}, r.Raw)
	require.Equal(t, int32(math.MaxInt32), r.AccuracyDM)
	require.Zero(t, r.RawHeadingDDeg)
	require.Zero(t, r.RawSpeedCMPS)
}

func TestKindsParse(t *testing.T) {
	for _, k := range []row.Kind{row.Final, row.Open, row.Late, row.SetAside, row.Conflict, row.Duplicate, row.Refused} {
		got, ok := row.ParseKind(k.String())
		require.True(t, ok)
		require.Equal(t, k, got)
	}
	_, ok := row.ParseKind("unheard_of")
	require.False(t, ok)
}

func kinds(rows []row.Fix) []row.Kind {
	var out []row.Kind
	for _, r := range rows {
		out = append(out, r.Kind)
	}
	return out
}
