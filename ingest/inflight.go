package ingest

import (
	"time"

	"github.com/starling-fleet/starling/schemas/wire"
)

// What a report in flight is charged with besides its record.
const (
	slotBytes    = 160
	refusalBytes = 320
)

// keptRefusals is the capacity for refusals that a sender keeps for the next
// acknowledgement.
const keptRefusals = 64

// slot is one report in flight. It is the log's Completion for its record.
type slot struct {
	stream   *stream
	number   int64
	sequence int64
	fixes    int // accepted
	bytes    int64
	refusals []wire.FixRefusal
	done     bool
	err      error
	timedAt  time.Duration // when it was handed to the log by the monotonic clock; zero if it is not timed
	next     *slot         // in the list of free slots
}

// push puts a report in flight, or returns nil, with its bytes released, when
// the stream takes no more.
func (s *stream) push(r *wire.Report, refusals []wire.FixRefusal, bytes int64, pending bool) *slot {
	sl, wake := s.place(r, refusals, bytes, pending)
	if sl == nil {
		s.srv.budget.release(bytes)
		return nil
	}
	s.srv.metrics.inFlightReports.Inc()
	if wake {
		notify(s.wake)
	}
	return sl
}

// place is push's part under the lock. Wake is whether the sender must be woken.
func (s *stream) place(r *wire.Report, refusals []wire.FixRefusal, bytes int64, pending bool) (sl *slot, wake bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endingSince != 0 || s.isOver {
		return nil, false
	}
	sl = s.free
	if sl == nil {
		sl = &slot{stream: s}
	} else {
		s.free = sl.next
	}
	s.pushed++
	*sl = slot{
		stream: s, number: s.pushed, sequence: r.Sequence, fixes: len(r.Fixes),
		bytes: bytes, refusals: refusals, done: !pending,
	}
	if pending && !s.timing {
		s.timing, sl.timedAt = true, s.srv.mono()+1
	}
	s.enqueue(sl)
	s.inFlight++
	s.inFlightBytes += bytes
	if pending {
		s.pendingBytes += bytes
	}
	if !s.hasSender {
		s.hasSender = true
		s.srv.calls.Add(1)
		go s.sendAll()
	}
	return sl, !pending && s.wakeSender(sl)
}

// enqueue puts the slot behind those in flight, growing the ring when it is
// full.
func (s *stream) enqueue(sl *slot) {
	if s.pushed-s.taken > int64(len(s.ring)) {
		ring := make([]*slot, max(4, 2*len(s.ring)))
		for n := s.taken + 1; n < s.pushed; n++ {
			ring[n&int64(len(ring)-1)] = s.at(n)
		}
		s.ring = ring
	}
	s.ring[sl.number&int64(len(s.ring)-1)] = sl
}

func (s *stream) at(number int64) *slot { return s.ring[number&int64(len(s.ring)-1)] }

// Done implements eventlog.Completion.
func (sl *slot) Done(_ int64, err error) {
	s := sl.stream
	s.srv.appends.settled(err)
	out := s.settle(sl, err)
	if out.wake {
		notify(s.wake)
	}
	if err != nil {
		s.stopReceive(nil)
	}
	if out.closed {
		s.srv.budget.release(out.bytes)
		s.srv.metrics.inFlightReports.Dec()
	}
	if out.timedAt != 0 {
		s.srv.metrics.appendSeconds.Observe((s.srv.mono() + 1 - out.timedAt).Seconds())
	}
}

// settled is what follows from the log's answer for a report.
type settled struct {
	wake, closed bool
	bytes        int64
	timedAt      time.Duration
}

// settle notes the log's answer. After it the slot may be used again, by another
// report.
func (s *stream) settle(sl *slot, err error) (out settled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl.done, sl.err = true, err
	s.pendingBytes -= sl.bytes
	if sl.timedAt != 0 {
		out.timedAt, s.timing = sl.timedAt, false
	}
	out.bytes, out.closed = sl.bytes, s.closed
	if out.closed {
		s.inFlight--
		s.inFlightBytes -= out.bytes
	}
	if err != nil {
		s.beginEnding()
	}
	out.wake = s.wakeSender(sl)
	return out
}

// wakeSender returns whether the sender must be woken now that sl is done. Only
// the oldest report in flight can move the acknowledgement on.
func (s *stream) wakeSender(sl *slot) bool {
	if s.woken || sl.number != s.taken+1 {
		return false
	}
	s.woken = true
	return true
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// batch sums up what one acknowledgement covers.
type batch struct {
	reports, fixes int
	bytes          int64
}

// takeDone moves every report that can be acknowledged now into ack. It returns
// over when the stream ends after it.
func (s *stream) takeDone(ack *wire.Ack) (b batch, over bool) {
	ack.Refusals = ack.Refusals[:0]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.woken = false
	for s.taken < s.pushed {
		sl := s.at(s.taken + 1)
		if !sl.done {
			return b, false
		}
		if sl.err != nil {
			s.result = s.srv.appendFailed(sl.number, sl.err)
			return b, true
		}
		s.taken++
		b.reports++
		b.fixes += sl.fixes
		b.bytes += sl.bytes
		ack.AcknowledgedReports, ack.AcknowledgedSequence = sl.number, sl.sequence
		ack.Refusals = append(ack.Refusals, sl.refusals...)
		sl.refusals = nil
		sl.next, s.free = s.free, sl
	}
	return b, s.endingSince != 0
}

// sendAll acknowledges until the stream is over.
func (s *stream) sendAll() {
	defer s.srv.calls.Done()
	defer s.caught(nil)
	var ack wire.Ack
	for {
		select {
		case <-s.wake:
		case <-s.rpc.Context().Done():
			return
		case <-s.over:
			return
		}
		b, over := s.takeDone(&ack)
		if b.reports > 0 {
			s.sendingSince.Store(s.srv.tick.Load())
			err := s.rpc.SendMsg(&ack)
			s.sendingSince.Store(0)
			if err != nil {
				s.abort(err)
				return
			}
			s.acknowledged(b)
			if cap(ack.Refusals) > keptRefusals {
				ack.Refusals = nil
			}
		}
		if over {
			s.end()
			return
		}
	}
}

// acknowledged releases what the reports of a sent acknowledgement held.
func (s *stream) acknowledged(b batch) {
	wantsCapacity, closed := s.leave(b)
	if closed {
		return // close has given it back
	}
	if wantsCapacity {
		notify(s.capacity)
	}
	s.srv.budget.release(b.bytes)
	m := s.srv.metrics
	m.inFlightReports.Sub(float64(b.reports))
	m.reportsAcked.Add(float64(b.reports))
	m.fixesAcked.Add(float64(b.fixes))
}

// leave takes acknowledged reports out of flight, unless the stream is closed.
func (s *stream) leave(b batch) (wantsCapacity, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false, true
	}
	s.inFlight -= b.reports
	s.inFlightBytes -= b.bytes
	return s.wantsCapacity, false
}

// beginEnding makes the stream take no more reports.
func (s *stream) beginEnding() {
	if s.endingSince == 0 {
		s.endingSince = s.srv.tick.Load()
	}
}

// finish ends the stream with result once everything in flight is settled and
// acknowledged. The first call counts.
func (s *stream) finish(result error) {
	switch first, idle := s.beginFinish(result); {
	case !first:
	case idle:
		s.end()
	default:
		notify(s.wake)
	}
}

// beginFinish makes the stream end with result, unless it does with another. Idle
// is whether nothing is in flight.
func (s *stream) beginFinish(result error) (first, idle bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endingSince != 0 {
		return false, false
	}
	s.beginEnding()
	s.result = result
	return true, s.inFlight == 0
}

// abort ends the stream with result at once.
func (s *stream) abort(result error) {
	s.replaceResult(result)
	s.end()
}

func (s *stream) replaceResult(result error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isOver {
		s.result = result
	}
	s.beginEnding()
}

// shrink releases the memory of a burst when nothing is in flight.
func (s *stream) shrink() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inFlight == 0 && s.taken == s.pushed {
		s.ring, s.free = nil, nil
	}
}

// end lets the handler return.
func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isOver {
		s.isOver = true
		close(s.over)
	}
}

// close releases what the stream holds, except for what the log has not
// settled: that is released when it is. It returns the stream's result.
func (s *stream) close() error {
	s.stopReceive(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	unsettled := 0
	for n := s.taken + 1; n <= s.pushed; n++ {
		if !s.at(n).done {
			unsettled++
		}
	}
	s.srv.budget.release(s.inFlightBytes - s.pendingBytes)
	s.srv.metrics.inFlightReports.Sub(float64(s.inFlight - unsettled))
	s.inFlight, s.inFlightBytes = unsettled, s.pendingBytes
	return s.result
}
