package fanout

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// firstWait is how much longer than Config.Timeout the first message of a watch
// may take: a matcher that resumes one first catches up for up to 5 s.
const firstWait = 6 * time.Second

// message is what the matcher of a region sent.
type message[T any] struct {
	number int
	body   *T
}

// opener opens a watch at a matcher.
type opener[T any] func(context.Context, starlingv1.FleetServiceClient) (grpc.ServerStreamingClient[T], error)

// beginWatch takes a place among the watch calls. The caller must call end.
func (f *Fanout) beginWatch() (end func(), err error) {
	select {
	case f.watches <- struct{}{}:
		return func() { <-f.watches }, nil
	default:
		return nil, statusError(codes.ResourceExhausted, reasonTooManyWatchers, "too many watch calls are open", nil)
	}
}

// watchAll watches at all regions until ctx is done, and passes on what they send,
// of each region in order. Nothing is buffered: who does not read makes the
// matchers wait, and they merge what changes meanwhile. One error is sent when a
// region cannot be watched any more.
func watchAll[T any](ctx context.Context, f *Fanout, open opener[T]) (messages <-chan message[T], failed <-chan error) {
	out, errs := make(chan message[T]), make(chan error, len(f.groups))
	for number := range f.groups {
		go func() { errs <- follow(ctx, f, number, open, out) }()
	}
	return out, errs
}

// follow watches at one of a region's replicas: the first that sends something.
func follow[T any](ctx context.Context, f *Fanout, number int, open opener[T], out chan<- message[T]) (err error) {
	group := f.groups[number]
	first := int(f.nextReplica.Add(1) % uint32(len(group)))
	for i := range group {
		r := &group[(first+i)%len(group)]
		f.metrics.asked[number].Inc()
		var began bool
		if began, err = followReplica(ctx, f, number, r, open, out); ctx.Err() != nil {
			return ctx.Err()
		}
		if !retryable(err) {
			return err
		}
		f.metrics.failed[number].Inc()
		if err = f.unavailable(number, r, err); began {
			return err
		}
	}
	return err
}

func followReplica[T any](ctx context.Context, f *Fanout, number int, r *replica, open opener[T], out chan<- message[T]) (began bool, err error) {
	ctx, cancel := f.attempt(ctx, number, 1)
	defer cancel()
	late := time.AfterFunc(f.cfg.Timeout+firstWait, cancel)
	defer late.Stop()
	stream, err := open(ctx, r.client)
	if err != nil {
		return false, err
	}
	for ; ; began = true {
		msg, err := stream.Recv()
		if err != nil {
			return began, status.Convert(err).Err()
		}
		late.Stop()
		select {
		case out <- message[T]{number, msg}:
		case <-ctx.Done():
			return true, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// WatchVehicleCounts implements starlingv1.FleetServiceServer; it is not offered.
func (f *Fanout) WatchVehicleCounts(*starlingv1.WatchVehicleCountsRequest, grpc.ServerStreamingServer[starlingv1.WatchVehicleCountsResponse]) error {
	return statusError(codes.Unimplemented, reasonNotOffered, "a fan-out does not watch counts: ask CountVehicles again, or watch at a matcher that knows the whole fleet", nil)
}
