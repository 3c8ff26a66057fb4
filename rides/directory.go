package rides

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// directory is the owner's index: every ride of the partitions that are owned
// here as it stands in `rides`, with its events, for queries, for subscribers and
// for the nodes that do not own them. It is a reader like any other: it drops
// what owners that had been replaced have appended. Its methods may be called by
// any number of goroutines.
type directory struct {
	log Log
	// nameAge is how long a ride is kept that has ended, indexAge how long an
	// event is.
	nameAge, indexAge time.Duration
	// happened is called with each event that comes once a partition has caught up,
	// in order, and caughtUp when it has. They must not block.
	happened func(step)
	caughtUp func(partition int32)

	mu         sync.Mutex
	partitions map[int32]*indexed
	waiting    map[int32]*bell // for a partition to be read on
}

// indexed is one partition.
type indexed struct {
	state life.State
	next  int64 // in `rides`
	// clockMS is the largest append stamp, sweptMS that of the last sweep.
	clockMS, sweptMS int64
	steps            map[string][]step // by ride, in order
	caughtUp         bool
	// stored is what `rides-state` has, nil once it was taken.
	stored *kept
	// riders are the riders of the rides.
	riders map[string]tally
}

// tally is how many rides of a rider are kept, and how many of these go on.
type tally struct{ kept, active int }

func newIndexed(next int64, stored *kept) *indexed {
	return &indexed{next: next, steps: make(map[string][]step), stored: stored, riders: make(map[string]tally)}
}

// count adds a ride to its rider's, or takes it away.
func (x *indexed) count(r *life.Ride, by int) {
	if r == nil {
		return
	}
	rider := r.Order.GetRider()
	t := x.riders[rider]
	t.kept += by
	if !r.Phase.Ended() {
		t.active += by
	}
	if x.riders[rider] = t; t == (tally{}) {
		delete(x.riders, rider)
	}
}

// step is an event and the ride after it.
type step struct {
	event *starlingv1.RideEvent
	ride  *life.Ride
	// requestsBelow is what the partition reflected then.
	requestsBelow int64
}

func newDirectory(log Log, nameAge, indexAge time.Duration) *directory {
	return &directory{
		log: log, nameAge: nameAge, indexAge: indexAge, happened: func(step) {}, caughtUp: func(int32) {},
		partitions: make(map[int32]*indexed), waiting: make(map[int32]*bell),
	}
}

// bell is rung for those who wait for one thing, and gone with the last of them.
type bell struct {
	waiters int
	rung    chan struct{} // closed at the next change
}

func newBell() *bell { return &bell{rung: make(chan struct{})} }

func (b *bell) ring() {
	close(b.rung)
	b.rung = make(chan struct{})
}

// ready returns whether a partition is indexed here up to where it ended when the
// reading began.
func (d *directory) ready(n int32) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.partitions[n]
	return x != nil && x.caughtUp
}

// follow indexes a partition until ctx is done, and then forgets it. The rides whose
// events the log has lost are taken from what is stored, as they stood.
func (d *directory) follow(ctx context.Context, n int32, stored *kept) error {
	defer d.drop(n)
	err := scan(ctx, d.log, n, func(batch eventlog.Batch, end int64) (bool, error) { return true, d.apply(batch, end) },
		func(first, end int64) { d.begin(n, first, end, stored) })
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// scan reads a partition of `rides` from its beginning for as long as more returns
// true. begin, if not nil, is called first with where it begins and ends.
func scan(ctx context.Context, log Log, n int32, more func(batch eventlog.Batch, end int64) (bool, error), begin func(first, end int64)) error {
	bounds, err := log.Bounds(ctx, topics.Rides)
	if err != nil {
		return fmt.Errorf("bounds of %s: %w", topics.Rides, err)
	}
	b := bounds[n]
	if begin != nil {
		begin(b.First, b.End)
	}
	reader, err := log.NewReader(ctx, topics.Rides, map[int32]int64{n: b.First})
	if err != nil {
		return fmt.Errorf("read %s: %w", topics.Rides, err)
	}
	defer func() { _ = reader.Close() }()
	for {
		batch, err := reader.Poll(ctx)
		if err != nil {
			return fmt.Errorf("read %s: %w", topics.Rides, err)
		}
		if on, err := more(batch, b.End); err != nil || !on {
			return err
		}
	}
}

// begin opens the index of a partition; one that is empty has caught up.
func (d *directory) begin(n int32, first, end int64, stored *kept) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := newIndexed(first, stored)
	x.caughtUp = first >= end
	d.partitions[n] = x
	x.adopt()
	if x.caughtUp {
		d.caughtUp(n)
	}
}

// drop forgets a partition and wakes all who wait for it.
func (d *directory) drop(n int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.partitions, n)
	d.announce(n)
}

func (d *directory) apply(batch eventlog.Batch, end int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := batch.Partition
	x := d.partitions[n]
	for _, stored := range batch.Records {
		s, err := x.apply(&stored)
		if err != nil {
			return err
		}
		if s != nil {
			x.steps[s.ride.Name] = append(x.steps[s.ride.Name], *s)
			if x.caughtUp {
				d.happened(*s)
			}
		}
		x.adopt()
		if !x.caughtUp && x.next >= end {
			x.caughtUp = true
			d.caughtUp(n)
		}
	}
	d.sweep(x)
	d.announce(n)
	return nil
}

// adopt takes what is stored once everything before it was read.
func (x *indexed) adopt() {
	if x.stored == nil || x.next < x.stored.next {
		return
	}
	x.state.Adopt(&x.stored.state, func(ride string) { delete(x.steps, ride) })
	x.stored = nil
	clear(x.riders)
	x.state.Each(func(r *life.Ride) { x.count(r, 1) })
}

// apply folds one record, and returns the event that it is if it counts.
func (x *indexed) apply(stored *eventlog.Stored) (*step, error) {
	var r starlingv1.RideRecord
	if err := proto.Unmarshal(stored.Value, &r); err != nil {
		return nil, fmt.Errorf("decode %s at offset %d: %w", topics.Rides, stored.Offset, err)
	}
	before := x.state.Ride(r.GetEvent().GetRide())
	verdict := x.state.Apply(stored.Offset, &r)
	x.next, x.clockMS = stored.Offset+1, max(x.clockMS, stored.AppendTimeMS)
	if verdict != life.Happened {
		return nil, nil
	}
	after := x.state.Ride(r.GetEvent().GetRide())
	x.count(before, -1)
	x.count(after, 1)
	return &step{r.GetEvent(), after, x.state.RequestsBelow}, nil
}

// sweepInterval is how often rides that have ended long ago are dropped, by the
// append stamps.
const sweepInterval = time.Minute

// sweep drops the rides of a partition that have ended and whose names are over,
// and events that are too old. The lock is held.
func (d *directory) sweep(x *indexed) {
	if x.clockMS < x.sweptMS+sweepInterval.Milliseconds() {
		return
	}
	x.sweptMS = x.clockMS
	oldest := x.clockMS - d.indexAge.Milliseconds()
	x.state.Each(func(r *life.Ride) {
		if r.Phase.Ended() && nameOver(r.Name, x.clockMS, d.nameAge) {
			x.state.Forget(r.Name)
			x.count(r, -1)
			delete(x.steps, r.Name)
			return
		}
		steps := x.steps[r.Name]
		kept := slices.IndexFunc(steps, func(s step) bool { return s.event.GetTimeMs() >= oldest })
		if kept < 0 {
			kept = len(steps)
		}
		if kept > 0 {
			x.steps[r.Name] = slices.Clone(steps[kept:])
		}
	})
}

// announce wakes those who wait for a partition. The lock is held.
func (d *directory) announce(n int32) {
	if b, ok := d.waiting[n]; ok {
		b.ring()
	}
}

// get returns a ride as it stands and what its partition reflects; nil if there is
// none.
func (d *directory) get(n int32, name string) (ride *life.Ride, requestsBelow int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if x := d.partitions[n]; x != nil {
		return x.state.Ride(name), x.state.RequestsBelow
	}
	return nil, 0
}

// since returns a ride and its events behind a sequence number. whole is false when
// some of them are not to be had, or when the ride has not come that far.
func (d *directory) since(n int32, name string, sequence int64) (ride *life.Ride, requestsBelow int64, steps []step, whole bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.partitions[n]
	if x == nil {
		return nil, 0, nil, false
	}
	steps, whole = x.since(name, sequence)
	return x.state.Ride(name), x.state.RequestsBelow, steps, whole
}

func (x *indexed) since(name string, sequence int64) (steps []step, whole bool) {
	ride := x.state.Ride(name)
	if ride == nil {
		return nil, sequence == 0
	}
	all := x.steps[name]
	at, _ := slices.BinarySearchFunc(all, sequence, func(s step, after int64) int {
		if s.event.GetSequence() <= after {
			return -1
		}
		return 1
	})
	steps = slices.Clone(all[at:])
	return steps, sequence <= ride.Sequence && int64(len(steps)) == ride.Sequence-sequence
}

// ofRider returns how many rides of a rider are indexed here.
func (d *directory) ofRider(rider string) (all tally) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, x := range d.partitions {
		t := x.riders[rider]
		all.kept, all.active = all.kept+t.kept, all.active+t.active
	}
	return all
}

// last returns the number of a ride's last event, 0 if there is no such ride.
func (d *directory) last(n int32, name string) int64 {
	if ride, _ := d.get(n, name); ride != nil {
		return ride.Sequence
	}
	return 0
}

// has returns whether a ride is known, and what is closed when its partition was
// read on, for a caller who has joined the partition.
func (d *directory) has(n int32, name string, b *bell) (there bool, more <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.partitions[n]
	return x != nil && x.state.Ride(name) != nil, b.rung
}

// reach waits until a partition of `rides` was read up to an offset. It fails with
// errElsewhere when the partition is not indexed here.
func (d *directory) reach(ctx context.Context, n int32, next int64) error {
	b := d.join(n)
	defer d.leave(n, b)
	for {
		there, known, more := d.readTo(n, next, b)
		switch {
		case there:
			return nil
		case !known:
			return errElsewhere
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// readTo returns whether a partition was read up to an offset, whether it is indexed
// here, and what is closed when it was read on, for a caller who has joined it.
func (d *directory) readTo(n int32, next int64, b *bell) (there, known bool, more <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.partitions[n]
	return x != nil && x.next >= next, x != nil, b.rung
}

func (d *directory) join(n int32) *bell {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, ok := d.waiting[n]
	if !ok {
		b = newBell()
		d.waiting[n] = b
	}
	b.waiters++
	return b
}

func (d *directory) leave(n int32, b *bell) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b.waiters--; b.waiters == 0 {
		delete(d.waiting, n)
	}
}

// listed is a ride on a page, and what its partition reflects.
type listed struct {
	ride          *life.Ride
	requestsBelow int64
}

// page returns up to count rides behind a name, by name, that keep passes.
func (d *directory) page(after string, count int, keep func(*life.Ride) bool) []listed {
	d.mu.Lock()
	defer d.mu.Unlock()
	var rides []listed
	for _, x := range d.partitions {
		x.state.Each(func(r *life.Ride) {
			if r.Name > after && keep(r) {
				rides = append(rides, listed{r, x.state.RequestsBelow})
			}
		})
	}
	slices.SortFunc(rides, func(a, b listed) int { return strings.Compare(a.ride.Name, b.ride.Name) })
	return rides[:min(count, len(rides))]
}
