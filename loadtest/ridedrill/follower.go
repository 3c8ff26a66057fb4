package ridedrill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/loadtest/ridedrill/check"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// follower follows one ride after another to its end, whoever's they are. Its
// connection breaks again and again, and it resumes at another node.
type follower struct {
	w       *world
	rng     *rand.Rand
	history *history
	stop    <-chan struct{}
	node    int // where it was connected last
}

func newFollower(w *world, n int, h *history, stop <-chan struct{}) *follower {
	rng := rand.New(rand.NewPCG(w.opts.Seed, 1<<36+uint64(n)))
	return &follower{w: w, rng: rng, history: h, stop: stop, node: rng.IntN(len(w.follow))}
}

// run follows rides until stop is closed and the last has ended.
func (f *follower) run(ctx context.Context) error {
	for {
		select {
		case <-f.stop:
			return nil
		default:
		}
		name := f.history.recent(f.rng, f.w.opts.Riders)
		if name == "" {
			if !sleep(ctx, 20*time.Millisecond) {
				return ctx.Err()
			}
			continue
		}
		if err := f.see(ctx, name); err != nil {
			return fmt.Errorf("follow %s: %w", name, err)
		}
	}
}

// see follows a ride over as many connections as it takes.
func (f *follower) see(ctx context.Context, name string) error {
	following := &following{ride: name}
	f.history.follows(following)
	positions := f.rng.IntN(4) == 0
	var after, epoch int64
	for {
		one := check.Connection{OpenedMS: time.Now().UnixMilli(), After: after, Epoch: epoch}
		if epoch > 0 && f.rng.IntN(20) == 0 {
			f.pretend(&one)
		}
		ended, err := f.connect(ctx, name, positions, &one)
		one.NotFound = status.Code(err) == codes.NotFound
		for _, s := range one.Sent {
			if s.Vehicle == "" {
				after, epoch = s.Ride, s.Epoch
			}
		}
		following.connections = append(following.connections, one)
		if ended {
			following.whole = true
			return nil
		}
		if err != nil && !again(err) && !one.NotFound {
			return err
		}
		if !sleep(ctx, time.Duration(f.rng.Int64N(int64(2*f.w.opts.Connected/5+time.Millisecond)))) {
			return errors.Join(ctx.Err(), err)
		}
	}
}

// pretend has a connection name events that its client was not sent: of another
// epoch, or that do not exist.
func (f *follower) pretend(one *check.Connection) {
	one.Untrue = true
	if f.rng.IntN(2) == 0 {
		one.Epoch += 1 + f.rng.Int64N(3)
		one.After++
		return
	}
	one.After += 1_000_000
}

// connect follows a ride at another node than before until the connection breaks,
// and returns whether the ride has ended.
func (f *follower) connect(ctx context.Context, name string, positions bool, one *check.Connection) (ended bool, err error) {
	mean := f.w.opts.Connected
	ctx, cancel := context.WithTimeout(ctx, mean/10+time.Duration(f.rng.Int64N(int64(2*mean))))
	defer cancel()
	if n := len(f.w.follow); n > 1 {
		f.node = (f.node + 1 + f.rng.IntN(n-1)) % n
	}
	conns := f.w.follow[f.node]
	s, err := conns[f.rng.IntN(len(conns))].SubscribeRideEvents(ctx, &starlingv1.SubscribeRideEventsRequest{
		Name: "rides/" + name, AfterSequence: one.After, Epoch: one.Epoch, Positions: positions,
	})
	if err != nil {
		return false, err
	}
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			one.Ended = true
			// A subscription behind the last event is sent nothing.
			return ended || len(one.Sent) == 0 && one.After > 0, nil
		}
		if err != nil {
			return ended, err
		}
		one.Sent = append(one.Sent, check.SentOf(time.Now().UnixMilli(), m))
		if m.GetRide().GetPhase() >= starlingv1.RidePhase_RIDE_PHASE_COMPLETED {
			ended = true
		}
	}
}
