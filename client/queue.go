package client

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
)

// lane identifies the sequence that a report belongs to: one session of one
// vehicle.
type lane struct {
	vehicle string
	session uint64
}

// entry is one report that the server has not acknowledged.
type entry struct {
	lane     lane
	sequence int64
	fixes    int
	body     []byte
	// queuedAt is when Send queued it; sends is how often it was sent.
	queuedAt time.Time
	sends    int
}

// vehicleState is the session that the Reporter has drawn for a vehicle.
type vehicleState struct {
	session uint64
	last    int64 // sequence of its newest report
}

// queue is the first-in-first-out list of unacknowledged reports. The first
// `sent` of them are on the current stream. All methods are safe for concurrent
// use; at most one goroutine calls next.
type queue struct {
	cfg Config

	mu       sync.Mutex
	entries  []entry // entries[head:] are pending
	head     int
	sent     int   // of the pending ones, how many are on the current stream
	popped   int64 // reports acknowledged on the current stream
	named    lane  // of the newest report on the current stream
	bytes    int64
	lanes    map[lane]int // pending reports
	vehicles map[string]vehicleState
	closing  bool
	stopped  error // why no report is accepted any more

	// wake has a token if something has changed that next waits for.
	wake chan struct{}
	// capacity is closed and replaced when pending reports go away, if anyone
	// waits.
	capacity chan struct{}
	waiting  int
}

func newQueue(cfg Config) *queue {
	return &queue{
		cfg:      cfg,
		lanes:    make(map[lane]int),
		vehicles: make(map[string]vehicleState),
		wake:     make(chan struct{}, 1),
		capacity: make(chan struct{}),
	}
}

// add queues a report and waits while the queue is full. A report with session
// 0 gets the vehicle's session and its next sequence.
func (q *queue) add(ctx context.Context, e entry) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	own := e.lane.session == 0
	for {
		if q.stopped != nil {
			return q.stopped
		}
		if q.closing {
			return ErrClosed
		}
		if own {
			e.lane.session = q.vehicles[e.lane.vehicle].session
		}
		if q.fits(e) {
			break
		}
		if err := q.waitForCapacity(ctx); err != nil {
			return err
		}
	}
	if own {
		if err := q.number(&e); err != nil {
			return err
		}
	}
	e.queuedAt = time.Now()
	q.entries = append(q.entries, e)
	q.bytes += int64(len(e.body))
	q.lanes[e.lane]++
	q.signal()
	return nil
}

// waitForCapacity releases the lock until pending reports have gone or ctx is
// done.
func (q *queue) waitForCapacity(ctx context.Context) error {
	capacity := q.capacity
	q.waiting++
	q.mu.Unlock()
	var err error
	select {
	case <-capacity:
	case <-ctx.Done():
		err = fmt.Errorf("waiting for acknowledgements of earlier reports: %w", context.Cause(ctx))
	}
	q.mu.Lock()
	q.waiting--
	return err
}

func (q *queue) fits(e entry) bool {
	pending := len(q.entries) - q.head
	if pending == 0 {
		return true // a report larger than the bound must still be sent
	}
	return pending < q.cfg.MaxPendingReports &&
		q.bytes+int64(len(e.body)) <= q.cfg.MaxPendingBytes &&
		q.lanes[e.lane] < MaxUnacknowledged
}

// number gives a report the vehicle's session and its next sequence.
func (q *queue) number(e *entry) error {
	v, ok := q.vehicles[e.lane.vehicle]
	if !ok {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return fmt.Errorf("draw a session id: %w", err)
		}
		v.session = max(1, binary.LittleEndian.Uint64(b[:]))
		q.forgetIdle()
	}
	v.last++
	q.vehicles[e.lane.vehicle] = v
	e.lane.session, e.sequence = v.session, v.last
	return nil
}

// forgetIdle keeps the table of sessions bounded. A vehicle with nothing
// pending loses nothing by a new session.
func (q *queue) forgetIdle() {
	for name, v := range q.vehicles {
		if len(q.vehicles) < q.cfg.MaxVehicles {
			return
		}
		if q.lanes[lane{name, v.session}] == 0 {
			delete(q.vehicles, name)
		}
	}
}

// next returns the next report for the current stream, encoded, waiting until
// there is one. Done means that the queue is closing and everything has been
// sent.
func (q *queue) next(ctx context.Context) (frame []byte, done bool, err error) {
	for {
		q.mu.Lock()
		if i := q.head + q.sent; i < len(q.entries) {
			e := &q.entries[i]
			frame = encodeFrame(e, e.lane != q.named)
			q.named = e.lane
			e.sends++
			q.sent++
			q.mu.Unlock()
			return frame, false, nil
		}
		closing := q.closing
		q.mu.Unlock()
		if closing {
			return nil, true, nil
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		}
	}
}

// waitWork blocks until a report is pending, or the queue is closing and empty.
func (q *queue) waitWork(ctx context.Context) (drained bool, err error) {
	for {
		q.mu.Lock()
		pending, closing := len(q.entries)-q.head, q.closing
		q.mu.Unlock()
		if pending > 0 {
			return false, nil
		}
		if closing {
			return true, nil
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// rewind starts a new stream: everything pending is to be sent again.
func (q *queue) rewind() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sent, q.popped, q.named = 0, 0, lane{}
}

// pop removes the n oldest reports, which must have been sent on the current
// stream, and returns them.
func (q *queue) pop(n int) ([]entry, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n < 0 || n > q.sent {
		return nil, fmt.Errorf("server acknowledged %d reports more, but only %d are outstanding", n, q.sent)
	}
	popped := make([]entry, n)
	copy(popped, q.entries[q.head:])
	q.sent -= n
	q.popped += int64(n)
	for range popped {
		q.drop(q.head)
		q.head++
	}
	q.tidy()
	return popped, nil
}

// remove takes out the report with the given number, counted from 1, on the
// stream that has ended. It returns false if that report is not outstanding.
func (q *queue) remove(number int64) (entry, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	index := number - q.popped - 1
	if index < 0 || index >= int64(q.sent) {
		return entry{}, false
	}
	i := q.head + int(index)
	e := q.entries[i]
	q.drop(i)
	q.entries = append(q.entries[:i], q.entries[i+1:]...)
	q.sent--
	q.tidy()
	return e, true
}

// drop subtracts entry i from the counts and releases its memory.
func (q *queue) drop(i int) {
	e := &q.entries[i]
	q.bytes -= int64(len(e.body))
	if q.lanes[e.lane]--; q.lanes[e.lane] == 0 {
		delete(q.lanes, e.lane)
	}
	*e = entry{}
}

// tidy moves the pending entries to the front when most of the slice is unused,
// and wakes waiting callers.
func (q *queue) tidy() {
	if q.head > 64 && q.head > len(q.entries)/2 {
		n := copy(q.entries, q.entries[q.head:])
		clear(q.entries[n:])
		q.entries, q.head = q.entries[:n], 0
	}
	if q.waiting > 0 {
		close(q.capacity)
		q.capacity = make(chan struct{})
	}
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// close refuses further reports; pending ones are still sent.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closing = true
	q.tidy()
}

// stop refuses further reports with err.
func (q *queue) stop(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = errors.Join(ErrStopped, err)
	q.tidy()
}

// drained reports whether nothing is pending and no report can be added.
func (q *queue) drained() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closing && q.head == len(q.entries)
}

// size returns how many reports and bytes are pending and how many of the
// reports are on the current stream.
func (q *queue) size() (reports int, bytes int64, sent int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.entries) - q.head, q.bytes, q.sent
}
