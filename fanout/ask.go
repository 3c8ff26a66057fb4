package fanout

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/starling-fleet/starling/fanout/region"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Reasons of google.rpc.ErrorInfo in this package's statuses.
const (
	errorDomain           = "fleet.starling.v1"
	reasonUnavailable     = "REGION_UNAVAILABLE" // metadata: region
	reasonTooManyCalls    = "TOO_MANY_CALLS"
	reasonTooManyWatchers = "TOO_MANY_WATCHERS"
	reasonNotOffered      = "NOT_OFFERED"
	reasonNoTravelTimes   = "NO_TRAVEL_TIMES"
	reasonStopped         = "STOPPED"
)

func statusError(code codes.Code, reason, message string, facts map[string]string) error {
	var details []protoadapt.MessageV1
	if code == codes.Unavailable || code == codes.ResourceExhausted {
		details = append(details, rpcstatus.RetryAfter(time.Second))
	}
	return rpcstatus.Error(code, rpcstatus.Reason{Domain: errorDomain, Name: reason, Metadata: facts}, message, details...)
}

func hasStopped() error {
	return statusError(codes.Unavailable, reasonStopped, "the fan-out has stopped", nil)
}

// call is a question to a matcher.
type call[T any] func(context.Context, starlingv1.FleetServiceClient) (T, error)

// begin takes a place among the calls at work and bounds the call's time. The
// caller must call end.
func (f *Fanout) begin(caller context.Context) (ctx context.Context, end func(), err error) {
	select {
	case <-f.stopped:
		return nil, nil, hasStopped()
	default:
	}
	select {
	case f.calls <- struct{}{}:
	case <-f.stopped:
		return nil, nil, hasStopped()
	default:
		return nil, nil, statusError(codes.ResourceExhausted, reasonTooManyCalls, "too many calls are being answered", nil)
	}
	ctx, cancel := context.WithTimeout(caller, f.cfg.Timeout)
	return ctx, func() { cancel(); <-f.calls }, nil
}

// gather asks regions at the same time. It fails with the first error.
func gather[T any](ctx context.Context, f *Fanout, numbers []int, ask call[T]) ([]T, error) {
	out := make([]T, len(numbers))
	if len(numbers) == 1 {
		var err error
		out[0], err = askRegion(ctx, f, numbers[0], ask)
		return out, err
	}
	group, ctx := errgroup.WithContext(ctx)
	for i, number := range numbers {
		group.Go(func() (err error) {
			out[i], err = askRegion(ctx, f, number, ask)
			return err
		})
	}
	return out, group.Wait()
}

// askRegion asks the replicas of a region one after the other until one
// answers. Each may take its share of the time that is left.
func askRegion[T any](ctx context.Context, f *Fanout, number int, ask call[T]) (answer T, err error) {
	group := f.groups[number]
	first := int(f.nextReplica.Add(1) % uint32(len(group)))
	for i := range group {
		r := &group[(first+i)%len(group)]
		attempt, cancel := f.attempt(ctx, number, len(group)-i)
		answer, err = ask(attempt, r.client)
		cancel()
		f.metrics.asked[number].Inc()
		if err == nil || !retryable(err) {
			return answer, err
		}
		if ctx.Err() == context.Canceled {
			return answer, status.FromContextError(ctx.Err()).Err()
		}
		f.metrics.failed[number].Inc()
		err = f.unavailable(number, r, err)
	}
	return answer, err
}

// attempt is the context of a call to one of n replicas that are left.
func (f *Fanout) attempt(ctx context.Context, number, n int) (context.Context, context.CancelFunc) {
	ctx = metadata.AppendToOutgoingContext(ctx, region.Header, f.regions.Label(number))
	if deadline, ok := ctx.Deadline(); ok && n > 1 {
		return context.WithTimeout(ctx, time.Until(deadline)/time.Duration(n))
	}
	return context.WithCancel(ctx)
}

// retryable reports whether another replica may answer where one failed so.
func retryable(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.FailedPrecondition:
		return true
	}
	return false
}

// unavailable names the region that is missing.
func (f *Fanout) unavailable(number int, r *replica, cause error) error {
	name := f.names[number]
	return statusError(codes.Unavailable, reasonUnavailable,
		fmt.Sprintf("region %s cannot be asked: matcher %s: %s", name, r.address, status.Convert(cause).Message()), map[string]string{"region": name})
}

// failed is how a call ends that err ended: if its caller gave up, with that.
func failed(caller context.Context, err error) error {
	if caller.Err() != nil {
		return status.FromContextError(caller.Err()).Err()
	}
	return err
}

// all are the numbers of all regions.
func (f *Fanout) all() []int {
	out := make([]int, len(f.groups))
	for i := range out {
		out[i] = i
	}
	return out
}

// newer reports whether a is a later view of the vehicle than b. A vehicle's
// reports are in the order of their seen times, and every fix is counted.
func newer(a, b *starlingv1.Vehicle) bool {
	if x, y := a.GetSeenTime(), b.GetSeenTime(); x.GetSeconds() != y.GetSeconds() || x.GetNanos() != y.GetNanos() {
		return x.GetSeconds() > y.GetSeconds() || x.GetSeconds() == y.GetSeconds() && x.GetNanos() > y.GetNanos()
	}
	fixes := func(v *starlingv1.Vehicle) int64 {
		c := v.GetFixCounts()
		return c.GetAccepted() + c.GetDuplicate() + c.GetConflict() + c.GetLate()
	}
	return fixes(a) > fixes(b)
}

// staleness gathers stale partitions: each once, with the largest lag that any matcher reports.
type staleness map[int32]*starlingv1.StalePartition

func (s *staleness) add(partitions []*starlingv1.StalePartition) {
	for _, one := range partitions {
		if *s == nil {
			*s = staleness{}
		}
		// One of which nothing is known counts most.
		have, ok := (*s)[one.GetPartition()]
		if !ok || have.Behind != nil && (one.Behind == nil || one.Behind.AsDuration() > have.Behind.AsDuration()) {
			(*s)[one.GetPartition()] = one
		}
	}
}

// list is in the order of the partitions.
func (s staleness) list() []*starlingv1.StalePartition {
	var out []*starlingv1.StalePartition
	for _, one := range s {
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b *starlingv1.StalePartition) int { return int(a.GetPartition() - b.GetPartition()) })
	return out
}
