package rides

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/rides/events"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// exchange publishes the events that owners of this process have read back, and
// compares what is followed here with its owners. Publishing never holds an owner
// up: what a store does not take is found by the comparisons.
type exchange struct {
	role *Rides
	wake chan struct{}

	mu    sync.Mutex
	queue []step
}

// maxQueued bounds the events that wait for the store.
const maxQueued = 10_000

func newExchange(role *Rides) *exchange {
	return &exchange{role: role, wake: make(chan struct{}, 1)}
}

// happened takes an event that was read back. It does not block.
func (x *exchange) happened(s step) {
	if x.role.store.Shared() { // followers of this node wait for no store
		if f := x.role.feeds.get(s.ride.Name); f != nil {
			f.push(x.role.message(s))
		}
	}
	if !x.put(s) {
		x.role.metrics.unpublished.Inc()
		return
	}
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// put queues an event, or returns false when the queue is full.
func (x *exchange) put(s step) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.queue) >= maxQueued {
		return false
	}
	x.queue = append(x.queue, s)
	return true
}

func (x *exchange) take() []step {
	x.mu.Lock()
	defer x.mu.Unlock()
	steps := x.queue
	x.queue = nil
	return steps
}

// run publishes until ctx is done.
func (x *exchange) run(ctx context.Context) {
	r := x.role
	for {
		select {
		case <-ctx.Done():
			return
		case <-x.wake:
		}
		steps := x.take()
		messages := make([]events.Message, 0, len(steps))
		for _, s := range steps {
			value, err := proto.Marshal(r.message(s))
			if err != nil { // only of text that is no UTF-8, which requests are checked for
				r.metrics.unpublished.Inc()
				continue
			}
			messages = append(messages, events.Message{Ride: s.ride.Name, Sequence: s.event.GetSequence(), Value: value})
		}
		publishing, cancel := context.WithTimeout(ctx, publishTimeout)
		err := r.store.Publish(publishing, messages)
		cancel()
		if err != nil && ctx.Err() == nil {
			r.metrics.storeFailures.Inc()
			r.metrics.unpublished.Add(float64(len(messages)))
			r.logger.Warn("events of rides are not published; nodes find them when they compare", "error", err)
		}
	}
}

// publishTimeout bounds one publication.
const publishTimeout = 5 * time.Second

// quickCompare is the interval of comparisons while no store pushes what other
// nodes publish.
const quickCompare = 250 * time.Millisecond

// compare asks the owners of what is followed here for the rides' last numbers,
// again and again, until ctx is done.
func (x *exchange) compare(ctx context.Context) {
	r := x.role
	tick := time.NewTicker(min(quickCompare, r.cfg.CompareInterval))
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		all := time.Since(last) >= r.cfg.CompareInterval
		if !all && r.store.Shared() && r.store.Healthy() {
			continue
		}
		if all {
			last = time.Now()
		}
		x.round(ctx, all)
	}
}

// round compares once: what others own, and also what is owned here if all.
func (x *exchange) round(ctx context.Context, all bool) {
	r := x.role
	var asking sync.WaitGroup
	for n, followed := range r.feeds.byPartition() {
		if r.leads(n) {
			if all && r.directory.ready(n) {
				for _, f := range followed {
					f.hear(r.directory.last(n, f.ride))
				}
			}
			continue
		}
		asking.Go(func() { x.ask(ctx, n, followed) })
	}
	asking.Wait()
}

// ask compares the rides of one partition with its owner.
func (x *exchange) ask(ctx context.Context, n int32, followed []*feed) {
	r := x.role
	for len(followed) > 0 {
		part := followed[:min(len(followed), maxCompared)]
		followed = followed[len(part):]
		req := &starlingv1.CompareRidesRequest{Partition: n}
		for _, f := range part {
			req.Rides = append(req.Rides, f.ride)
		}
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		var answer *starlingv1.CompareRidesResponse
		err := r.peers.ask(asking, n, func(ctx context.Context, c starlingv1.RideOwnerServiceClient) (err error) {
			answer, err = c.CompareRides(ctx, req)
			return err
		})
		cancel()
		if err != nil || len(answer.GetSequences()) != len(part) {
			r.metrics.ownerFailures.Inc()
			return // asked again soon
		}
		for i, f := range part {
			if before := f.last(); answer.Sequences[i] > before {
				r.metrics.found.Inc()
				f.hear(answer.Sequences[i])
			}
		}
	}
}

// caughtUp has what is followed of a partition compared with its new index.
func (x *exchange) caughtUp(n int32) {
	r := x.role
	r.feeds.mu.Lock()
	defer r.feeds.mu.Unlock()
	for _, f := range r.feeds.all {
		if f.partition == n {
			f.doubt()
		}
	}
}
