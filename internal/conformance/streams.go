package conformance

import (
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// StreamJudge judges one stream of a client.
type StreamJudge struct {
	j    *Judge
	pace *pace
	// sent are the reports of the stream in order; a nil lane is one that could
	// not be told.
	sent  []sentReport
	acked int
	named laneKey
	last  map[*lane]int64 // the newest sequence of a lane on this stream
	depth map[*lane]int   // of a lane, how many are unacknowledged
}

type sentReport struct {
	lane *lane
	seq  int64
}

// Opened tells of a stream that the client opens.
func (j *Judge) Opened() *StreamJudge {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counts.Streams++
	j.open++
	return &StreamJudge{j: j, pace: j.began(""), last: map[*lane]int64{}, depth: map[*lane]int{}}
}

// Received tells of a report, of so many encoded bytes.
func (s *StreamJudge) Received(r *starlingv1.Report, bytes int) {
	s.j.mu.Lock()
	defer s.j.mu.Unlock()
	if r.GetVehicleId() == "" {
		r.VehicleId = s.named.vehicle
	}
	if r.GetSessionId() == 0 {
		r.SessionId = s.named.session
	}
	s.named = laneKey{r.GetVehicleId(), r.GetSessionId()}
	l, seq := s.j.report(r, bytes, len(s.sent) == 0)
	s.sent = append(s.sent, sentReport{l, seq})
	if l == nil {
		return
	}
	s.place(l, seq)
	s.last[l] = seq
	if s.depth[l]++; s.depth[l] == limits.MaxUnacknowledgedReports+1 {
		s.j.breach(RuleDepth, "%d reports of %s are sent and unacknowledged, at most %d may be", s.depth[l], l.key.vehicle, limits.MaxUnacknowledgedReports)
	}
}

// place judges a report's place on the stream.
func (s *StreamJudge) place(l *lane, seq int64) {
	last, onStream := s.last[l]
	if a := l.reports[seq-1]; a.settled && a.sure {
		s.j.breach(RuleForget, "%s was sent again, though it had been acknowledged or rejected", l.name(seq))
		return
	}
	switch {
	case !onStream && seq > l.oldest():
		s.j.breach(RuleResend, "a stream begins at %s, though %d is the oldest that is unacknowledged", l.name(seq), l.oldest())
	case onStream && seq <= last:
		s.j.breach(RuleOrder, "%s comes after %d on one stream", l.name(seq), last)
	case onStream:
		for skipped := last + 1; skipped < seq; skipped++ {
			if !l.reports[skipped-1].settled {
				s.j.breach(RuleOrder, "%s comes after %d on one stream, though %d is unacknowledged", l.name(seq), last, skipped)
				return
			}
		}
	}
}

// Acknowledged tells that the first n reports of the stream are about to be
// acknowledged.
func (s *StreamJudge) Acknowledged(n int) {
	s.j.mu.Lock()
	defer s.j.mu.Unlock()
	for ; s.acked < n; s.acked++ {
		if r := s.sent[s.acked]; r.lane != nil {
			r.lane.settle(r.seq, false)
			s.depth[r.lane]--
		}
		s.pace.failures = 0
	}
}

// Rejected tells that report n of the stream is about to be named as invalid. It
// is sure unless the client may have given the stream up before.
func (s *StreamJudge) Rejected(n int, sure bool) {
	s.j.mu.Lock()
	defer s.j.mu.Unlock()
	if r := s.sent[n-1]; r.lane != nil {
		r.lane.settle(r.seq, sure)
	}
}

// Ended tells how the stream is about to end.
func (s *StreamJudge) Ended(e End) {
	s.j.mu.Lock()
	defer s.j.mu.Unlock()
	s.j.open--
	if !e.Unsure {
		// The client has every acknowledgement before it has the status.
		for _, r := range s.sent[:s.acked] {
			if r.lane != nil {
				r.lane.settle(r.seq, true)
			}
		}
	}
	s.j.end(s.pace, e)
}

// CallJudge judges one unary call.
type CallJudge struct {
	j    *Judge
	pace *pace
	lane *lane
	seq  int64
}

// Called tells of a unary call.
func (j *Judge) Called(r *starlingv1.Report, bytes int) *CallJudge {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counts.Calls++
	j.open++
	c := &CallJudge{j: j, pace: j.began(r.GetVehicleId())}
	if c.lane, c.seq = j.report(r, bytes, true); c.lane == nil {
		return c
	}
	l := c.lane
	if l.calls++; l.calls > 1 {
		j.breach(RuleOrder, "%s is called before the call before it is answered", l.name(c.seq))
	}
	switch a := l.reports[c.seq-1]; {
	case a.settled && a.sure:
		j.breach(RuleForget, "%s was sent again, though it had been acknowledged or rejected", l.name(c.seq))
	case c.seq > l.oldest():
		j.breach(RuleResend, "%s was sent, though %d is the oldest that is unacknowledged", l.name(c.seq), l.oldest())
	}
	return c
}

// Answered tells how the call is about to be answered: acknowledged or rejected
// if settled, else by the status of End.
func (c *CallJudge) Answered(settled bool, e End) {
	c.j.mu.Lock()
	defer c.j.mu.Unlock()
	c.j.open--
	if settled {
		// A client may wait for all of its vehicles together.
		for _, p := range c.j.paces {
			p.failures = 0
		}
	}
	if c.lane != nil {
		c.lane.calls--
		if settled {
			c.lane.settle(c.seq, !e.Unsure)
		}
	}
	c.j.end(c.pace, e)
}
