package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

var (
	// ErrClosed is returned by Send after Close.
	ErrClosed = errors.New("reporter is closed")
	// ErrStopped is returned by Send if Run has returned before Close; it is
	// joined with Run's error.
	ErrStopped = errors.New("reporter has stopped")
	// ErrInvalidReport is returned by Send for a report that every server
	// refuses as a whole.
	ErrInvalidReport = errors.New("invalid report")
	// ErrProtocol means that the server violated the protocol; the stream is
	// reopened.
	ErrProtocol = errors.New("server broke the protocol")
	// ErrAckTimeout means that no acknowledgement arrived in time; the stream
	// is reopened.
	ErrAckTimeout = errors.New("no acknowledgement in time")

	// ErrNoAckYet is passed to Handlers.Waiting when no stream has ended with
	// an error meanwhile.
	ErrNoAckYet = errors.New("no acknowledgement yet")

	errEndedEarly = errors.New("server ended the stream before it had acknowledged everything")
)

// Receipt confirms that the server has made one report durable.
type Receipt struct {
	VehicleID string
	SessionID uint64
	Sequence  int64
	// Fixes is how many fixes the report carried, refused ones included.
	Fixes int
	// Sends is how often the report was sent; more than 1 after a broken
	// stream.
	Sends int
	// Latency is the time from queueing the report in Send to its
	// acknowledgement.
	Latency time.Duration
}

// Refusal describes one refused fix of an acknowledged report.
type Refusal struct {
	VehicleID   string
	SessionID   uint64
	Sequence    int64
	FixIndex    int
	Field       string
	Reason      starlingv1.RefusalReason
	Description string
}

// RejectedError means that the server refused a whole report and would refuse
// it again: it is not in the log.
type RejectedError struct {
	VehicleID string
	SessionID uint64
	Sequence  int64
	Fixes     int
	// Err is the server's status.
	Err error
}

func (e *RejectedError) Error() string {
	return fmt.Sprintf("report %d of vehicle %q was rejected: %v", e.Sequence, e.VehicleID, e.Err)
}

// Unwrap returns the server's status.
func (e *RejectedError) Unwrap() error { return e.Err }

// Handlers are callbacks for what happens to reports. Each may be nil. They are
// called one at a time, from a goroutine of Run, and delay acknowledgements
// while they run; they must not call the Reporter's Send or Close.
type Handlers struct {
	// Acknowledged is called for each report that is durable, oldest first.
	Acknowledged func(Receipt)
	// Refused is called for each fix that the server refused, before its
	// report's Acknowledged.
	Refused func(Refusal)
	// Rejected is called for a report that the server refused as a whole. The
	// other reports are sent without it. If Rejected is nil, Run returns the
	// error instead.
	Rejected func(*RejectedError)
	// Broken is called when a stream has broken, with the wait before the next
	// attempt.
	Broken func(err error, retryIn time.Duration)
	// Waiting is called when reports have been pending for 2 seconds without
	// an acknowledgement, and every 10 seconds after that, with what is known
	// of why: the error with which the newest stream has broken, or an
	// ErrNoAckYet that names the connection's state. Unlike the others it may
	// be called while another one runs.
	Waiting func(waited time.Duration, why error)
}

// Stats are a Reporter's counts. Every report that Send has accepted is counted
// under one of AcknowledgedReports, RejectedReports and PendingReports.
type Stats struct {
	// AcknowledgedReports and AcknowledgedFixes are durable; of the fixes,
	// RefusedFixes were refused and are not.
	AcknowledgedReports int64 `json:"acknowledged_reports"`
	AcknowledgedFixes   int64 `json:"acknowledged_fixes"`
	RefusedFixes        int64 `json:"refused_fixes"`
	// RejectedReports and RejectedFixes were refused as a whole.
	RejectedReports int64 `json:"rejected_reports"`
	RejectedFixes   int64 `json:"rejected_fixes"`
	// ResentReports and ResentFixes were sent more than once before they were
	// acknowledged: the log may hold copies of them.
	ResentReports int64 `json:"resent_reports"`
	ResentFixes   int64 `json:"resent_fixes"`
	// BrokenStreams is how many streams ended with unacknowledged reports or
	// with a status that a retry can't change.
	BrokenStreams int64 `json:"broken_streams"`
	// PendingReports are not acknowledged yet.
	PendingReports int `json:"pending_reports"`
	// PendingBytes is their encoded size.
	PendingBytes int64 `json:"pending_bytes"`
}

// Reporter sends reports of one or many vehicles over one stream at a time and
// keeps each until the server has acknowledged it. After a broken stream it
// opens another and sends everything unacknowledged again, in the same order
// and under the same session and sequence. Its methods are safe for concurrent
// use.
type Reporter struct {
	conn     grpc.ClientConnInterface
	cfg      Config
	handlers Handlers
	queue    *queue
	done     chan struct{}
	closed   sync.Once
	runErr   error // set before done is closed

	ackedReports, ackedFixes, refusedFixes atomic.Int64
	rejectedReports, rejectedFixes         atomic.Int64
	resentReports, resentFixes, broken     atomic.Int64
	// newestFault is why the newest stream has broken; nil after an
	// acknowledgement.
	newestFault atomic.Pointer[error]
}

// NewReporter returns a Reporter on a connection, such as Dial's. It sends
// nothing before Run is called.
func NewReporter(conn grpc.ClientConnInterface, cfg Config, handlers Handlers) (*Reporter, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("reporter: %w", err)
	}
	return &Reporter{conn: conn, cfg: cfg, handlers: handlers, queue: newQueue(cfg), done: make(chan struct{})}, nil
}

// Send queues a report for delivery and returns before it is delivered. It blocks
// while the vehicle has MaxUnacknowledged reports pending or the Reporter's
// bounds are reached, until ctx is done. A nil error means that the report will
// be sent until it is acknowledged or rejected, as long as Run runs.
//
// A report without a session is given the vehicle's session and next sequence.
// A caller that keeps reports over a restart sets both itself. Reports of one
// vehicle are delivered in the order of Send calls that follow one another. The
// report may be reused after Send.
func (r *Reporter) Send(ctx context.Context, report *starlingv1.Report) error {
	if err := checkReport(report); err != nil {
		return err
	}
	body, err := encodeBody(report)
	if err != nil {
		return err
	}
	if len(body) > MaxReportBytes {
		return fmt.Errorf("%w: it has %d bytes encoded, at most %d are accepted", ErrInvalidReport, len(body), MaxReportBytes)
	}
	return r.queue.add(ctx, entry{
		lane:     lane{report.GetVehicleId(), report.GetSessionId()},
		sequence: report.GetSequence(),
		fixes:    len(report.GetFixes()),
		body:     body,
	})
}

// Close refuses further reports and waits until Run has delivered the pending ones
// and returned. If ctx is done first, the error names how many are pending;
// another call waits again.
func (r *Reporter) Close(ctx context.Context) error {
	r.closed.Do(r.queue.close)
	select {
	case <-r.done:
		return r.runErr
	case <-ctx.Done():
		pending, _, _ := r.queue.size()
		return fmt.Errorf("close with %d reports unacknowledged: %w", pending, context.Cause(ctx))
	}
}

// Stats returns the counts so far.
func (r *Reporter) Stats() Stats {
	s := Stats{
		AcknowledgedReports: r.ackedReports.Load(), AcknowledgedFixes: r.ackedFixes.Load(), RefusedFixes: r.refusedFixes.Load(),
		RejectedReports: r.rejectedReports.Load(), RejectedFixes: r.rejectedFixes.Load(),
		ResentReports: r.resentReports.Load(), ResentFixes: r.resentFixes.Load(),
		BrokenStreams: r.broken.Load(),
	}
	s.PendingReports, s.PendingBytes, _ = r.queue.size()
	return s
}

// Run delivers reports until Close has been called and everything is
// acknowledged (it returns nil), ctx is done, or the server returns a status
// that a retry can't change. It may be called once.
func (r *Reporter) Run(ctx context.Context) error {
	waiting, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() { defer close(watched); r.watchWaiting(waiting) }()
	err := r.run(ctx)
	stop()
	<-watched
	if pending, _, _ := r.queue.size(); err != nil && pending > 0 {
		err = fmt.Errorf("%d reports unacknowledged: %w", pending, err)
	}
	r.queue.stop(err)
	r.runErr = err
	close(r.done)
	return err
}

func (r *Reporter) run(ctx context.Context) error {
	wait := retryWait{min: r.cfg.BackoffMin, max: r.cfg.BackoffMax}
	for {
		drained, err := r.queue.waitWork(ctx)
		if drained || err != nil {
			return err
		}
		before := r.ackedReports.Load()
		err = r.runStream(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		pending, _, _ := r.queue.size()
		progress := r.ackedReports.Load() > before
		if pending == 0 && judge(err, progress) == endRetry {
			continue // nothing was unacknowledged
		}
		if err == nil {
			err = errEndedEarly
		}
		r.broken.Add(1)
		r.newestFault.Store(&err)
		if progress {
			wait.reset()
		}
		switch judge(err, progress) {
		case endReject:
			if err := r.reject(err); err != nil {
				return err
			}
			continue
		case endStop:
			return fmt.Errorf("stream reports: %w", err)
		case endRetry:
		}
		delay := wait.next(retryDelay(err))
		if h := r.handlers.Broken; h != nil {
			h(err, delay)
		}
		if err := sleep(ctx, delay); err != nil {
			return err
		}
	}
}

// reject removes the report that the server refused as a whole from the queue.
func (r *Reporter) reject(err error) error {
	number, ok := offender(err)
	if !ok {
		return fmt.Errorf("stream reports: %w", err)
	}
	e, found := r.queue.remove(number)
	if !found {
		return fmt.Errorf("stream reports: %w: it rejected report %d, which is not outstanding: %w", ErrProtocol, number, err)
	}
	rejected := &RejectedError{VehicleID: e.lane.vehicle, SessionID: e.lane.session, Sequence: e.sequence, Fixes: e.fixes, Err: err}
	r.rejectedReports.Add(1)
	r.rejectedFixes.Add(int64(e.fixes))
	if r.handlers.Rejected == nil {
		return rejected
	}
	r.handlers.Rejected(rejected)
	return nil
}

// retryWait doubles the wait between attempts and spreads it, so that clients
// which lost the same server do not come back together.
type retryWait struct {
	min, max, last time.Duration
}

func (w *retryWait) reset() { w.last = 0 }

// next returns the wait before the next attempt: half of it fixed, half drawn.
// It is never below what the server asked for.
func (w *retryWait) next(asked time.Duration) time.Duration {
	w.last = min(w.max, max(w.min, 2*w.last))
	wait := w.last/2 + rand.N(w.last/2+1)
	if asked > 0 {
		wait = max(wait, asked+rand.N(asked/4+1))
	}
	return wait
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
