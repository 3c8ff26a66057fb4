package conformance_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/conformance"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// bench is a judge with a clock that the test moves, and a client that keeps every
// rule unless the test has it do otherwise.
type bench struct {
	t     *testing.T
	clock time.Time
	feed  []*starlingv1.Report
	judge *conformance.Judge
}

func newBench(t *testing.T, reports int) *bench {
	b := &bench{t: t, clock: time.Unix(1_790_000_000, 0)}
	for i := range reports {
		b.feed = append(b.feed, &starlingv1.Report{VehicleId: "car", Fixes: []*starlingv1.Fix{{DeviceTimeMs: int64(1000 * (i + 1)), Latitude: 48}}})
	}
	b.judge = conformance.NewJudge(b.feed, func() time.Time { return b.clock })
	return b
}

// report is the feed's report i, from 0, under session 7 and its sequence.
func (b *bench) report(i int) *starlingv1.Report {
	r := proto.CloneOf(b.feed[i])
	r.SessionId, r.Sequence = 7, int64(i+1)
	return r
}

func (b *bench) send(s *conformance.StreamJudge, from, to int) {
	for i := from; i < to; i++ {
		s.Received(b.report(i), 100)
	}
}

// broken are the rules that the client has broken.
func (b *bench) broken() (rules []conformance.Rule) {
	_, breaches := b.judge.Result()
	for _, breach := range breaches {
		rules = append(rules, breach.Rule)
	}
	return rules
}

var retry = conformance.Move{End: conformance.Unavailable}.Ending()

func TestAClientThatKeepsEveryRulePasses(t *testing.T) {
	b := newBench(t, 70)
	s := b.judge.Opened()
	b.send(s, 0, 64)
	s.Acknowledged(10)
	s.Ended(retry)
	b.clock = b.clock.Add(150 * time.Millisecond)
	s = b.judge.Opened()
	first := b.report(10)
	s.Received(first, 100)
	unnamed := b.report(11)
	unnamed.VehicleId, unnamed.SessionId = "", 0
	s.Received(unnamed, 100)
	b.send(s, 12, 70)
	s.Acknowledged(30)
	s.Rejected(31, true)
	s.Ended(conformance.Move{Reject: true}.Ending())
	s = b.judge.Opened() // at once
	b.send(s, 41, 70)
	require.False(t, b.judge.Done())
	s.Acknowledged(29)
	s.Ended(conformance.End{})
	require.True(t, b.judge.Done())
	b.judge.Exited(0, 70, false)
	require.Empty(t, b.broken())
	counts, _ := b.judge.Result()
	require.Equal(t, conformance.Counts{Reports: 70, Resent: 54 + 29, Streams: 3}, counts)
}

// Each rule has a client that breaks it alone.
func TestEachRuleIsJudged(t *testing.T) {
	alter := func(r *starlingv1.Report, f func(*starlingv1.Report)) *starlingv1.Report { f(r); return r }
	for _, c := range []struct {
		name string
		rule conformance.Rule
		do   func(b *bench)
	}{
		{"no session", conformance.RuleNames, func(b *bench) {
			b.judge.Opened().Received(alter(b.report(0), func(r *starlingv1.Report) { r.SessionId = 0 }), 1)
		}},
		{"no sequence", conformance.RuleNames, func(b *bench) {
			b.judge.Opened().Received(alter(b.report(0), func(r *starlingv1.Report) { r.Sequence = 0 }), 1)
		}},
		{"a new session for the second report", conformance.RuleSession, func(b *bench) {
			s := b.judge.Opened()
			b.send(s, 0, 1)
			s.Received(alter(b.report(1), func(r *starlingv1.Report) { r.SessionId, r.Sequence = 8, 1 }), 1)
		}},
		{"other content under an old number", conformance.RuleNumbers, func(b *bench) {
			s := b.judge.Opened()
			b.send(s, 0, 1)
			s.Ended(conformance.End{})
			b.judge.Opened().Received(alter(b.report(1), func(r *starlingv1.Report) { r.Sequence = 1 }), 1)
		}},
		{"an old session after a restart", conformance.RuleNumbers, func(b *bench) {
			s := b.judge.Opened()
			b.send(s, 0, 2)
			s.Acknowledged(2)
			s.Ended(conformance.End{Unsure: true})
			b.judge.ProcessStarted()
			b.judge.Opened().Received(alter(b.report(2), func(r *starlingv1.Report) { r.Sequence = 1 }), 1)
		}},
		{"sent again under a new number", conformance.RuleNumbers, func(b *bench) {
			s := b.judge.Opened()
			b.send(s, 0, 1)
			s.Received(alter(b.report(0), func(r *starlingv1.Report) { r.Sequence = 2 }), 1)
		}},
		{"a gap in the sequence", conformance.RuleOrder, func(b *bench) {
			s := b.judge.Opened()
			b.send(s, 0, 1)
			b.send(s, 2, 3)
		}},
		{"backwards on a stream", conformance.RuleOrder, func(b *bench) {
			s := b.judge.Opened()
			b.send(s, 0, 2)
			b.send(s, 0, 1)
		}},
		{"a gap on the second stream", conformance.RuleOrder, func(b *bench) {
			s := b.judge.Opened()
			b.send(s, 0, 3)
			s.Ended(conformance.End{})
			s = b.judge.Opened()
			b.send(s, 0, 1)
			b.send(s, 2, 3)
		}},
		{"a queue out of order", conformance.RuleOrder, func(b *bench) {
			b.judge.Opened().Received(alter(b.report(2), func(r *starlingv1.Report) { r.Sequence = 1 }), 1)
		}},
		{"a changed fix", conformance.RuleContent, func(b *bench) {
			b.judge.Opened().Received(alter(b.report(0), func(r *starlingv1.Report) { r.Fixes[0].DeviceTimeMs++ }), 1)
		}},
		{"goes on behind what is unacknowledged", conformance.RuleResend, func(b *bench) {
			s := b.judge.Opened()
			b.send(s, 0, 5)
			s.Acknowledged(2)
			s.Ended(conformance.End{})
			b.send(b.judge.Opened(), 3, 5)
		}},
		{"acknowledged ones again", conformance.RuleForget, func(b *bench) {
			s := b.judge.Opened()
			b.send(s, 0, 2)
			s.Acknowledged(2)
			s.Ended(conformance.End{})
			b.send(b.judge.Opened(), 0, 1)
		}},
		{"a rejected one again", conformance.RuleForget, func(b *bench) {
			s := b.judge.Opened()
			b.send(s, 0, 1)
			s.Rejected(1, true)
			s.Ended(conformance.Move{Reject: true}.Ending())
			b.send(b.judge.Opened(), 0, 1)
		}},
		{"65 unacknowledged", conformance.RuleDepth, func(b *bench) { b.send(b.judge.Opened(), 0, 65) }},
		{"a time twice", conformance.RuleBounds, func(b *bench) {
			b.feed[0].Fixes = append(b.feed[0].Fixes, b.feed[0].Fixes[0])
			b.send(b.judge.Opened(), 0, 1)
		}},
		{"too many bytes", conformance.RuleBounds, func(b *bench) { b.judge.Opened().Received(b.report(0), 1<<20) }},
		{"back at once", conformance.RuleBackoff, func(b *bench) {
			b.judge.Opened().Ended(retry)
			b.clock = b.clock.Add(90 * time.Millisecond)
			b.judge.Opened()
		}},
		{"waits that do not grow", conformance.RuleBackoff, func(b *bench) {
			for range 3 {
				b.judge.Opened().Ended(retry)
				b.clock = b.clock.Add(200 * time.Millisecond)
			}
			b.judge.Opened()
		}},
		{"sooner than the server asks", conformance.RuleBackoff, func(b *bench) {
			b.judge.Opened().Ended(conformance.Move{End: conformance.Busy(time.Second)}.Ending())
			b.clock = b.clock.Add(900 * time.Millisecond)
			b.judge.Opened()
		}},
		{"waits that are not random", conformance.RuleJitter, func(b *bench) {
			for i := range 13 {
				s := b.judge.Opened()
				b.send(s, i, i+1)
				s.Acknowledged(1)
				s.Ended(retry)
				b.clock = b.clock.Add(200*time.Millisecond + time.Duration(i)*time.Millisecond)
			}
		}},
		{"again after PERMISSION_DENIED", conformance.RuleStop, func(b *bench) {
			b.judge.Opened().Ended(conformance.Move{End: conformance.Denied}.Ending())
			b.clock = b.clock.Add(time.Hour)
			b.judge.Opened()
		}},
		{"says it is delivered when it was denied", conformance.RuleStop, func(b *bench) { b.judge.Exited(0, 70, true) }},
		{"ends before everything is acknowledged", conformance.RuleDelivered, func(b *bench) {
			s := b.judge.Opened()
			b.send(s, 0, 20)
			s.Acknowledged(19)
			b.judge.Exited(0, 20, false)
		}},
		{"fails", conformance.RuleDelivered, func(b *bench) {
			s := b.judge.Opened()
			b.send(s, 0, 1)
			s.Acknowledged(1)
			b.judge.Exited(1, 1, false)
		}},
		{"two calls at once", conformance.RuleOrder, func(b *bench) {
			b.judge.Called(b.report(0), 1)
			b.judge.Called(b.report(0), 1)
		}},
		{"a call that skips one", conformance.RuleResend, func(b *bench) {
			b.judge.Called(b.report(0), 1).Answered(false, conformance.End{})
			b.judge.Called(b.report(1), 1).Answered(true, conformance.End{})
		}},
		{"a call again", conformance.RuleForget, func(b *bench) {
			b.judge.Called(b.report(0), 1).Answered(true, conformance.End{})
			b.judge.Called(b.report(0), 1).Answered(true, conformance.End{})
		}},
		{"a call back at once", conformance.RuleBackoff, func(b *bench) {
			b.judge.Called(b.report(0), 1).Answered(false, retry)
			b.judge.Called(b.report(0), 1).Answered(true, conformance.End{})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, 70)
			c.do(b)
			require.Equal(t, []conformance.Rule{c.rule}, b.broken())
		})
	}
}

// What a client can't know is not held against it.
func TestWhatAClientMayDo(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(b *bench)
	}{
		{"what was acknowledged on a connection that was cut comes again", func(b *bench) {
			s := b.judge.Opened()
			b.send(s, 0, 2)
			s.Acknowledged(2)
			s.Ended(conformance.End{Unsure: true})
			b.send(b.judge.Opened(), 0, 2)
		}},
		{"a session goes on over a restart", func(b *bench) {
			s := b.judge.Opened()
			b.send(s, 0, 2)
			s.Acknowledged(1)
			b.judge.ProcessStarted()
			b.send(b.judge.Opened(), 1, 3)
		}},
		{"a new session after a restart", func(b *bench) {
			s := b.judge.Opened()
			b.send(s, 0, 1)
			s.Acknowledged(1)
			s.Ended(conformance.End{})
			b.judge.ProcessStarted()
			r := b.report(1)
			r.SessionId, r.Sequence = 9, 1
			b.judge.Opened().Received(r, 1)
		}},
		{"an acknowledgement resets the wait", func(b *bench) {
			for i := range 5 {
				s := b.judge.Opened()
				b.send(s, i, i+1)
				s.Acknowledged(1)
				s.Ended(retry)
				b.clock = b.clock.Add(100 * time.Millisecond)
			}
			b.judge.Opened()
		}},
		{"a restarted client does not know how long it has to wait", func(b *bench) {
			b.judge.Opened().Ended(retry)
			b.judge.ProcessStarted()
			b.judge.Opened()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, 70)
			c.do(b)
			require.Empty(t, b.broken())
		})
	}
}
