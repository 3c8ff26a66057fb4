package client

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/connectivity"
)

// When Handlers.Waiting is called: first after waitingFirst without an
// acknowledgement, then every waitingAgain.
const (
	waitingFirst = 2 * time.Second
	waitingAgain = 10 * time.Second
	waitingTick  = 250 * time.Millisecond
)

// watchWaiting calls Handlers.Waiting until ctx is done.
func (r *Reporter) watchWaiting(ctx context.Context) {
	if r.handlers.Waiting == nil {
		return
	}
	tick := time.NewTicker(waitingTick)
	defer tick.Stop()
	since, due, acked := time.Now(), waitingFirst, int64(-1)
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			answered := r.ackedReports.Load() + r.rejectedReports.Load()
			if pending, _, _ := r.queue.size(); pending == 0 || answered != acked {
				since, due, acked = now, waitingFirst, answered
				continue
			}
			if waited := now.Sub(since); waited >= due {
				due += waitingAgain
				r.handlers.Waiting(waited, r.whyWaiting())
			}
		}
	}
}

// whyWaiting is what is known of why nothing is acknowledged: how the newest stream
// has ended, or the state of the connection.
func (r *Reporter) whyWaiting() error {
	state := connectivity.Ready
	if conn, ok := r.conn.(interface{ GetState() connectivity.State }); ok {
		state = conn.GetState()
	}
	switch newest := r.newestFault.Load(); {
	case newest != nil:
		return *newest
	case state == connectivity.Ready:
		return ErrNoAckYet
	default:
		return fmt.Errorf("%w: the connection is %s", ErrNoAckYet, state)
	}
}

// Troubles returns handlers that pass everything that keeps reports from being
// taken to one function, which may be nil: broken streams, waits, reports and fixes
// that the server refuses. Run goes on after all of these. It may be called often,
// and from several goroutines.
func Troubles(report func(error)) Handlers {
	if report == nil {
		report = func(error) {}
	}
	return Handlers{
		Refused: func(f Refusal) {
			report(fmt.Errorf("a fix of vehicle %q is refused: %s", f.VehicleID, f.Description))
		},
		Rejected: func(e *RejectedError) { report(e) },
		Broken:   func(err error, _ time.Duration) { report(err) },
		Waiting: func(waited time.Duration, why error) {
			report(fmt.Errorf("%w, for %s", why, waited.Round(time.Second)))
		},
	}
}
