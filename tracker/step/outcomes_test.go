package step_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

// log makes records, a second apart unless told otherwise.
type recordLog struct {
	records []step.Record
	clockMS int64
}

func (l *recordLog) add(key string, loc wire.Location) {
	l.records = append(l.records, step.Record{Offset: int64(len(l.records)), AppendTimeMS: noonMS + l.clockMS, Key: []byte(key), Value: loc.Append(nil)})
	l.clockMS += second
}

func (l *recordLog) report(session uint64, sequence int64, fixes ...wire.Fix) {
	l.add("car", wire.Location{Kind: wire.KindReport, Report: wire.Report{SessionID: session, Sequence: sequence, Fixes: fixes, Availability: starlingv1.Availability_AVAILABILITY_FREE}})
}

// run steps the records and requires that restarts change nothing.
func (l *recordLog) run(t *testing.T) (tracks []*wire.Track, p *step.Partition) {
	t.Helper()
	s := script{settings: defaultSettings(t), records: l.records}
	requireSameWithRestarts(t, s)
	p = newPartition(t)
	for _, rec := range l.records {
		r, err := p.Step(rec)
		require.NoError(t, err)
		require.NoError(t, r.Poison)
		var copied wire.Track
		require.NoError(t, copied.Unmarshal(r.Track.Append(nil)))
		tracks = append(tracks, &copied)
	}
	return tracks, p
}

func at(seconds int64, latDeg float64) wire.Fix {
	return wire.Fix{DeviceTimeMS: noonMS + seconds*second, LatDeg: latDeg, LonDeg: -97.74}
}

func rulesOf(t *wire.Track) (rules []starlingv1.OutcomeRule) {
	for _, o := range t.Outcomes {
		rules = append(rules, o.Rule)
	}
	return rules
}

func TestATrackSaysWhatBecameOfEachFix(t *testing.T) {
	var l recordLog
	l.report(1, 1, at(0, 30.1))
	l.report(1, 2, at(1, 30.2), at(0, 30.1), at(0, 30.9)) // new, a copy, a conflict
	l.report(1, 2, at(1, 30.2), at(2, 30.3))              // the report once more, with another fix
	l.clockMS = 60 * second
	l.report(1, 3, at(60, 30.4), wire.Fix{DeviceTimeMS: noonMS + 1500, LatDeg: 30.5, LonDeg: -97.74}) // one behind the window
	l.report(2, 1, at(61, 30.5))                                                                      // another phone takes over
	l.report(1, 4, at(90, 30.6))                                                                      // the former is shut out
	l.report(2, 2, at(3600, 30.7))                                                                    // ahead of time
	tracks, _ := l.run(t)
	for i, want := range []struct {
		session  uint64
		sequence int64
		counts   wire.FixCounts
		rules    []starlingv1.OutcomeRule
	}{
		{1, 1, wire.FixCounts{Accepted: 1}, nil},
		{1, 2, wire.FixCounts{Accepted: 1, Duplicate: 1, Conflict: 1}, []starlingv1.OutcomeRule{starlingv1.OutcomeRule_OUTCOME_RULE_SAME_CONTENT, starlingv1.OutcomeRule_OUTCOME_RULE_OTHER_CONTENT}},
		{1, 2, wire.FixCounts{Accepted: 1, Duplicate: 1}, []starlingv1.OutcomeRule{starlingv1.OutcomeRule_OUTCOME_RULE_SAME_CONTENT}},
		{1, 3, wire.FixCounts{Accepted: 1, Late: 1}, nil},
		{2, 1, wire.FixCounts{Accepted: 1}, nil},
		{1, 4, wire.FixCounts{SetAside: 1}, nil},
		{2, 2, wire.FixCounts{SetAside: 1}, nil},
	} {
		got := tracks[i]
		require.Equal(t, want.counts, got.Counts, "record %d", i)
		require.Equal(t, want.session, got.SessionID, "record %d", i)
		require.Equal(t, want.sequence, got.Sequence, "record %d", i)
		require.Equal(t, want.rules, rulesOf(got), "record %d", i)
	}
	require.Equal(t, at(0, 30.1), tracks[1].Outcomes[0].Fix)
	require.Equal(t, at(0, 30.9), tracks[1].Outcomes[1].Fix, "a conflict has its content")
	require.Equal(t, []starlingv1.OutcomeRule{starlingv1.OutcomeRule_OUTCOME_RULE_BEHIND_WINDOW}, tracks[3].LateRules)
	require.Equal(t, []starlingv1.OutcomeRule{starlingv1.OutcomeRule_OUTCOME_RULE_SESSION_SHUT_OUT}, tracks[5].SetAsideRules)
	require.Equal(t, []starlingv1.OutcomeRule{starlingv1.OutcomeRule_OUTCOME_RULE_STAMPED_AHEAD}, tracks[6].SetAsideRules)
}

func TestARefusedReportIsInItsTrack(t *testing.T) {
	settings := step.DefaultSettings()
	settings.MaxVehicles = 1
	p, err := step.NewPartition(settings, 1)
	require.NoError(t, err)
	var l recordLog
	l.report(1, 1, at(0, 30.1))
	l.add("other", wire.Location{Kind: wire.KindReport, Report: wire.Report{SessionID: 7, Sequence: 3, Fixes: []wire.Fix{at(2, 30.2), at(1, 30.3)}}})
	_, err = p.Step(l.records[0])
	require.NoError(t, err)
	r, err := p.Step(l.records[1])
	require.NoError(t, err)
	full := starlingv1.OutcomeRule_OUTCOME_RULE_PARTITION_FULL
	require.Equal(t, []wire.FixOutcome{{Rule: full, Fix: at(1, 30.3)}, {Rule: full, Fix: at(2, 30.2)}}, r.Track.Outcomes)
	require.Equal(t, uint64(7), r.Track.SessionID)
	require.Equal(t, int64(3), r.Track.Sequence)
}

// The version before says nothing, to the byte.
func TestTheVersionBeforeSaysNothingOfOutcomes(t *testing.T) {
	settings := step.DefaultSettings()
	back, err := step.NewVersionSwitch(2, settings)
	require.NoError(t, err)
	var l recordLog
	l.add("", back)
	l.report(1, 1, at(0, 30.1))
	l.report(1, 2, at(0, 30.9))
	tracks, _ := l.run(t)
	require.Equal(t, wire.FixCounts{Conflict: 1}, tracks[2].Counts)
	require.Zero(t, tracks[2].SessionID)
	require.Empty(t, tracks[2].Outcomes)
}

func erasure(untilSeconds int64) wire.Location {
	return wire.Location{Kind: wire.KindErasure, Erasure: wire.Erasure{UntilMS: noonMS + untilSeconds*second}}
}

func TestAnErasureForgetsTheVehicle(t *testing.T) {
	var l recordLog
	l.report(1, 1, at(0, 30.1))
	l.report(1, 2, at(1, 30.2))
	l.add("car", erasure(1)) // its newest fix is to stay
	l.add("car", erasure(2))
	l.add("car", erasure(3)) // there is none
	l.report(1, 3, at(5, 30.2))
	tracks, p := l.run(t)
	for i, untilS := range map[int]int64{2: 1, 3: 2, 4: 3} {
		require.Equal(t, noonMS+untilS*second, tracks[i].ErasedUntilMS)
		require.False(t, tracks[i].HasLive)
		require.Empty(t, tracks[i].FinalPoints)
	}
	require.Empty(t, tracks[2].Fired)
	require.Equal(t, []wire.Fired{{VehicleID: "car", Forgotten: true}}, tracks[3].Fired)
	require.Empty(t, tracks[4].Fired)
	require.Equal(t, wire.FixCounts{Accepted: 1}, tracks[5].Live.Counts, "it begins anew")
	require.Equal(t, 1, p.Vehicles())
}

func TestAHeldVehicleIsErasedAtItsRelease(t *testing.T) {
	var l recordLog
	attempt := wire.Attempt{Epoch: 1, Generation: 1, Counter: 1}
	l.add("", wire.Location{Kind: wire.KindReasserted, Reasserted: wire.Reasserted{Epoch: 1, Parts: 1}})
	l.report(1, 1, at(0, 30.1))
	l.report(1, 2, at(2, 30.1))
	l.add("car", wire.Location{Kind: wire.KindProposal, Proposal: wire.Proposal{Ride: "ride", Attempt: attempt, DecideByMS: noonMS + 10*second, MaxAgeMS: minute}})
	l.add("car", erasure(100))
	l.add("", wire.Location{Kind: wire.KindTick})
	l.add("car", wire.Location{Kind: wire.KindRelease, Release: wire.Release{Ride: "ride", Attempt: attempt, DecideByMS: noonMS + 10*second}})
	tracks, p := l.run(t)
	require.NotNil(t, tracks[3].Live.Reservation)
	require.Equal(t, noonMS+100*int64(second), tracks[4].ErasedUntilMS, "history erases at once")
	require.Empty(t, tracks[4].Fired)
	require.True(t, tracks[6].HasLive)
	require.Nil(t, tracks[6].Live.Reservation)
	require.Equal(t, []wire.Fired{{VehicleID: "car", Forgotten: true}}, tracks[6].Fired)
	require.Zero(t, p.Vehicles())
}

func TestAnErasureWithoutATimeIsPoison(t *testing.T) {
	p := newPartition(t)
	r, err := p.Step(step.Record{AppendTimeMS: noonMS, Key: []byte("car"), Value: (&wire.Location{Kind: wire.KindErasure}).Append(nil)})
	require.NoError(t, err)
	require.ErrorContains(t, r.Poison, "erasure without a time")
	require.Zero(t, r.Track.ErasedUntilMS)
}

// BenchmarkOutcomes is what it costs the step to say what became of fixes, for each
// fix: two partitions, of the step versions before and after, step the same reports in
// turn, so that a busy machine is as busy for both. One report in ten comes twice.
func BenchmarkOutcomes(b *testing.B) {
	for _, perReport := range []int{1, 5} {
		b.Run(fmt.Sprintf("fixes=%d", perReport), func(b *testing.B) {
			f := newFleet(10_000, perReport)
			without, with := &renumbered{Partition: newPartition(b)}, &renumbered{Partition: newPartition(b)}
			back, err := step.NewVersionSwitch(2, without.Settings())
			require.NoError(b, err)
			without.step(b, step.Record{AppendTimeMS: noonMS, Value: back.Append(nil)})
			bytes := map[*renumbered]int{}
			round := func() {
				f.round()
				for _, p := range []*renumbered{without, with} {
					started := cpuTime()
					for i, rec := range f.records {
						p.step(b, rec)
						bytes[p] += len(p.out)
						if i%10 == 0 {
							p.step(b, rec)
							bytes[p] += len(p.out)
						}
					}
					p.cpu += cpuTime() - started
				}
			}
			for range max(3, 120/perReport) { // until windows and memories are full
				round()
			}
			without.cpu, with.cpu = 0, 0
			clear(bytes)
			b.ResetTimer()
			fixes := 0
			for left := b.N; left > 0; left -= len(f.ids) {
				round()
				fixes += len(f.ids) * perReport
			}
			b.ReportMetric(float64(without.cpu.Nanoseconds())/float64(fixes), "without-cpu-ns/fix")
			b.ReportMetric(float64(with.cpu.Nanoseconds())/float64(fixes), "with-cpu-ns/fix")
			b.ReportMetric(100*(float64(with.cpu)/float64(without.cpu)-1), "more-%")
			b.ReportMetric(float64(bytes[with]-bytes[without])/float64(fixes), "more-B/fix")
		})
	}
}

// After a raised epoch a vehicle may be known by a restated promise alone, also across
// restarts, until it reports.
func TestAVehicleThatOnlyAPromiseKnowsSurvivesARestart(t *testing.T) {
	var l recordLog
	attempt := wire.Attempt{Epoch: 1, Generation: 1, Counter: 1}
	l.add("", wire.Location{Kind: wire.KindReasserted, Reasserted: wire.Reasserted{Epoch: 1, Parts: 1, Promises: []wire.Promise{
		{VehicleID: "car", Reservation: wire.Reservation{Ride: "ride", Attempt: attempt, Fence: wire.Fence{Epoch: 1, Offset: 3}}},
	}}})
	l.add("", wire.Location{Kind: wire.KindTick})
	l.report(1, 1, at(2, 30.1))
	l.add("car", wire.Location{Kind: wire.KindRelease, Release: wire.Release{Ride: "ride", Attempt: attempt, DecideByMS: noonMS + 10*second}})
	tracks, _ := l.run(t)
	require.Equal(t, "ride", tracks[2].Live.Reservation.Ride)
	require.Nil(t, tracks[3].Live.Reservation)
}
