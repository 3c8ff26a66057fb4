package modeltest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/modeltest/slow"
	"github.com/starling-fleet/starling/schemas/wire"
	trackerstep "github.com/starling-fleet/starling/tracker/step"
)

// street is one vehicle under the settings that Starling ships with: an honest
// phone that reports every second, and whoever disturbs it.
type street struct {
	rng      *rand.Rand
	settings trackerstep.Settings
	step     *trackerstep.Partition
	model    *slow.Model
	audit    *audit
	offset   int64
	// trueMS is the time, stampSkewMS what the log's clock is off by.
	trueMS, stampSkewMS int64
	view                wire.View
	honest              streetPhone
	// intrudedMS is the stream time when a second phone last sent a fix that may be in line: as
	// long as it is not silent, the vehicle is its.
	intrudedMS int64
	log        []string
	failure    string
}

type streetPhone struct {
	session  uint64
	sequence int64
	// skewMS is what its clock is off by.
	skewMS int64
}

func newStreet(seed uint64) *street {
	s := &street{rng: rand.New(rand.NewPCG(seed, 3)), settings: trackerstep.DefaultSettings(), trueMS: 1_767_268_800_000}
	var err error
	if s.step, err = trackerstep.NewPartition(s.settings, 1); err != nil {
		panic(err)
	}
	s.model, s.audit = slow.New(s.settings, 1), newAudit(s.settings)
	s.honest.session = s.rng.Uint64() | 1
	return s
}

// report appends a report of a phone with fixes so many milliseconds old.
func (s *street) report(p *streetPhone, state wire.Report, agesMS ...int64) {
	p.sequence++
	state.SessionID, state.Sequence = p.session, p.sequence
	for _, age := range agesMS {
		ms := s.trueMS + p.skewMS - age
		state.Fixes = append(state.Fixes, wire.Fix{DeviceTimeMS: ms, LatDeg: 30 + float64(s.trueMS%hourMS)*1e-7, LonDeg: 10})
	}
	l := wire.Location{Kind: wire.KindReport, Report: state}
	rec := eventlog.Stored{Offset: s.offset, AppendTimeMS: s.trueMS + s.stampSkewMS, Key: []byte("car"), Value: l.Append(nil)}
	s.offset++
	got, err := s.step.Step(trackerstep.Record(rec))
	want, _ := s.model.Step(rec)
	s.audit.track(rec, &want)
	switch s.view = want.Live; {
	case err != nil:
		s.failure = err.Error()
	case string(got.Track.Append(nil)) != string(want.Append(nil)):
		s.failure = "the step has something else than the model"
	default:
		s.failure = s.audit.failure
	}
	s.note("session %x/%d fixes %v: %+v, newest %+d ms, clock %+d ms, conflicting %v, %v", p.session>>48, p.sequence, offsets(state.Fixes, s.trueMS),
		want.Counts, s.view.DeviceTimeMS-s.trueMS, s.view.DeviceClockAheadMS, s.view.Conflicting, s.view.Availability)
}

func offsets(fixes []wire.Fix, nowMS int64) (ms []int64) {
	for _, f := range fixes {
		ms = append(ms, f.DeviceTimeMS-nowMS)
	}
	return ms
}

func (s *street) note(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf("%6.1f s: ", float64(s.trueMS-1_767_268_800_000)/1000)+fmt.Sprintf(format, args...))
}

// holds is how long the vehicle's position may be another than that of honest
// reports.
const holdsMS = 5000

// drive lets the honest phone report every second, disturbs it now and then,
// and checks that its position is never held for long.
func (s *street) drive(seconds int) {
	var intruder streetPhone
	since := int64(0) // when the position was first not an honest one
	s.intrudedMS = -hourMS
	for range seconds {
		s.disturb(&intruder)
		if s.failure != "" {
			return
		}
		s.report(&s.honest, wire.Report{}, 0)
		newest := s.view.DeviceTimeMS
		near := func(ms int64) bool { return max(newest-ms, ms-newest) <= holdsMS }
		switch {
		case near(s.trueMS + s.honest.skewMS), near(s.trueMS), s.audit.streamMS-s.intrudedMS < s.settings.SessionSilenceMS:
			since = 0
		case since == 0:
			since = s.trueMS
		case s.trueMS-since > holdsMS:
			s.failure = fmt.Sprintf("the position has been held for %d ms", s.trueMS-since)
			return
		}
		s.trueMS += 1000
	}
}

// disturb does what a phone, a second one or the log's clock may do to a vehicle
// between two honest reports.
func (s *street) disturb(intruder *streetPhone) {
	kind := s.rng.IntN(24)
	if off := s.audit.streamMS - s.trueMS; kind != 2 && kind < 7 && s.offset > 0 && (s.stampSkewMS != 0 || max(off, -off) > 2000) {
		kind = 20 // while stream time is wrong nobody can know that a fix is ahead of the truth
	}
	switch kind {
	case 0: // one fix stamped ahead
		ahead := s.honest
		ahead.skewMS += 5001 + s.rng.Int64N(114_000)
		s.report(&ahead, wire.Report{}, 0)
		s.honest.sequence = ahead.sequence
	case 1: // the same, with an honest one
		s.report(&s.honest, wire.Report{}, 0, -(5001 + s.rng.Int64N(114_000)))
		s.trueMS += 10
	case 2: // the app starts again
		s.honest.session, s.honest.sequence = s.rng.Uint64()|1, 0
		if s.honest.skewMS > s.settings.AheadToleranceMS+max(0, s.view.DeviceClockAheadMS) {
			s.intrudedMS = s.audit.streamMS // nothing is known of its clock: as much a stranger as a second phone
		}
	case 3: // the clock is set ahead, or right
		if intruder.skewMS > s.settings.AheadToleranceMS {
			return
		}
		if s.honest.skewMS > 0 {
			s.honest.skewMS = 0
		} else {
			s.honest.skewMS = pick[int64](s.rng, 3003, 7011, 20_017, 90_029, 118_041)
		}
		s.note("the honest clock is %+d ms off", s.honest.skewMS)
	case 4, 5, 6: // a second phone
		if intruder.session == 0 || s.rng.IntN(2) == 0 {
			*intruder = streetPhone{session: s.rng.Uint64() | 1}
		}
		if s.rng.IntN(2) == 0 {
			intruder.skewMS = pick[int64](s.rng, 0, 4000, 9000, 60_000, 119_000)
		}
		if s.honest.skewMS > s.settings.AheadToleranceMS {
			intruder.skewMS = 0 // when neither agrees with the stamps, nobody can know which is right
		}
		for range pick(s.rng, 1, 1, 2, 3, 4, 9) {
			s.report(intruder, wire.Report{}, 0)
			if intruder.skewMS <= s.settings.AheadToleranceMS+s.honest.skewMS {
				s.intrudedMS = s.audit.streamMS
			}
			s.trueMS += 7
		}
	case 7: // wrong stamps, for seconds or until they are believed
		if s.offset < 5 {
			return // what comes first is believed
		}
		if s.stampSkewMS == 0 {
			s.stampSkewMS = pick(s.rng, 8*dayMS, 3*hourMS, -3*hourMS)
		} else {
			s.stampSkewMS = 0
		}
		s.note("stamps are %+d ms off", s.stampSkewMS)
	}
	if s.stampSkewMS != 0 && s.rng.IntN(6) == 0 {
		s.stampSkewMS = 0
		s.note("stamps are right")
	}
}

// Whatever one disturbs it with, an honest phone's position is never held for
// more than five seconds, except by a second phone whose clock is right: the
// vehicle is that one's until it has been silent for session_silence.
func TestNothingHoldsAVehicle(t *testing.T) {
	eachSeed(t, streets, func(t *testing.T, seed uint64) {
		s := newStreet(seed)
		if s.drive(150); s.failure != "" {
			t.Log(strings.Join(s.log[max(0, len(s.log)-40):], "\n"))
		}
		require.Empty(t, s.failure, "repeat it with: go test ./internal/modeltest -run TestNothingHoldsAVehicle -seed %d", seed)
	})
}
