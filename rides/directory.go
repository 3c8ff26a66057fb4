package rides

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// directory holds every ride of every partition as it stands in `rides`, with
// its events, for queries and subscribers. It is a reader like any other: it
// drops what owners that had been replaced have appended. Its methods may be
// called by any number of goroutines.
type directory struct {
	log Log
	// nameAge is how long a ride is kept that has ended.
	nameAge time.Duration

	mu         sync.Mutex
	partitions []life.State
	next       []int64 // in `rides`, by partition
	swept      []int64 // append stamp of the last sweep, by partition
	events     map[string][]*starlingv1.RideEvent
	vehicles   map[string]string // vehicle to the ride that it is bound to
	waiting    map[string]*bell  // by what is waited for
	caughtUp   int               // partitions that have read what was there at the start
	ended      bool
}

func newDirectory(log Log, nameAge time.Duration) *directory {
	n := log.Partitions()
	return &directory{
		log: log, nameAge: nameAge, swept: make([]int64, n), partitions: make([]life.State, n), next: make([]int64, n), events: make(map[string][]*starlingv1.RideEvent),
		vehicles: make(map[string]string), waiting: make(map[string]*bell),
	}
}

// bell is rung for those who wait for one key, and gone with the last of them.
type bell struct {
	waiters int
	rung    chan struct{} // closed at the next change
}

// Keys of what can be waited for.
func rideKey(name string) string   { return "ride/" + name }
func vehicleKey(id string) string  { return "vehicle/" + id }
func partitionKey(n int32) string  { return fmt.Sprint("partition/", n) }
func (d *directory) ready() bool   { d.mu.Lock(); defer d.mu.Unlock(); return d.isReady() }
func (d *directory) isReady() bool { return d.caughtUp == len(d.partitions) && !d.ended }

// run reads `rides` until ctx is done.
func (d *directory) run(ctx context.Context) error {
	defer d.close()
	bounds, err := d.log.Bounds(ctx, topics.Rides)
	if err != nil {
		return d.failed(ctx, fmt.Errorf("bounds of %s: %w", topics.Rides, err))
	}
	start := make(map[int32]int64, len(bounds))
	end := make([]int64, len(bounds))
	for i, b := range bounds {
		start[int32(i)], end[i] = b.First, b.End
	}
	d.begin(start, end)
	reader, err := d.log.NewReader(ctx, topics.Rides, start)
	if err != nil {
		return d.failed(ctx, fmt.Errorf("read %s: %w", topics.Rides, err))
	}
	defer func() { _ = reader.Close() }()
	for {
		batch, err := reader.Poll(ctx)
		if err != nil {
			return d.failed(ctx, fmt.Errorf("read %s: %w", topics.Rides, err))
		}
		if err := d.apply(batch, end[batch.Partition]); err != nil {
			return err
		}
	}
}

func (d *directory) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// begin sets where the partitions are read from; those that are empty have
// caught up.
func (d *directory) begin(start map[int32]int64, end []int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for n := range d.next {
		d.next[n] = start[int32(n)]
		if d.next[n] >= end[n] {
			d.caughtUp++
		}
	}
}

// close wakes all who wait: nothing comes any more.
func (d *directory) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	for key := range d.waiting {
		d.announce(key)
	}
}

func (d *directory) apply(batch eventlog.Batch, end int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := batch.Partition
	for _, stored := range batch.Records {
		var r starlingv1.RideRecord
		if err := proto.Unmarshal(stored.Value, &r); err != nil {
			return fmt.Errorf("decode %s at offset %d: %w", topics.Rides, stored.Offset, err)
		}
		before := d.partitions[n].Ride(r.GetEvent().GetRide())
		if d.partitions[n].Apply(stored.Offset, &r) == life.Happened {
			d.happened(n, r.GetEvent(), before)
		}
		if d.next[n] < end && stored.Offset+1 >= end {
			d.caughtUp++
		}
		d.next[n] = stored.Offset + 1
		if stored.AppendTimeMS > d.swept[n]+sweepInterval.Milliseconds() {
			d.swept[n] = stored.AppendTimeMS
			d.sweep(n)
		}
	}
	d.announce(partitionKey(n))
	return nil
}

func (d *directory) happened(n int32, e *starlingv1.RideEvent, before *life.Ride) {
	name := e.GetRide()
	d.events[name] = append(d.events[name], e)
	ride := d.partitions[n].Ride(name)
	if before != nil && before.Bound != nil && ride.Bound == nil && d.vehicles[before.Bound.VehicleID] == name {
		delete(d.vehicles, before.Bound.VehicleID)
		d.announce(vehicleKey(before.Bound.VehicleID))
	}
	if ride.Bound != nil {
		d.vehicles[ride.Bound.VehicleID] = name
		d.announce(vehicleKey(ride.Bound.VehicleID))
	}
	d.announce(rideKey(name))
}

// sweepInterval is how often rides that have ended long ago are dropped, by the
// append stamps.
const sweepInterval = time.Minute

// sweep drops the rides of a partition that have ended and whose names are over.
// The lock is held.
func (d *directory) sweep(n int32) {
	d.partitions[n].Each(func(r *life.Ride) {
		if r.Phase.Ended() && nameOver(r.Name, d.swept[n], d.nameAge) {
			d.partitions[n].Forget(r.Name)
			delete(d.events, r.Name)
		}
	})
}

// announce wakes those who wait for a key. The lock is held.
func (d *directory) announce(key string) {
	if b, ok := d.waiting[key]; ok {
		close(b.rung)
		b.rung = make(chan struct{})
	}
}

// join begins to wait for a key; leave must be called in the end.
func (d *directory) join(key string) (leave func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, ok := d.waiting[key]
	if !ok {
		b = &bell{rung: make(chan struct{})}
		d.waiting[key] = b
	}
	b.waiters++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if b.waiters--; b.waiters == 0 {
			delete(d.waiting, key)
		}
	}
}

// get returns a ride as it stands, nil if there is none.
func (d *directory) get(n int32, name string) *life.Ride {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.partitions[n].Ride(name)
}

// since returns a ride, its events after a sequence number, and what is closed
// when there are more, for a caller who has joined the ride's key. whole is false
// when some of them are not to be had.
func (d *directory) since(n int32, name string, sequence int64) (ride *life.Ride, events []*starlingv1.RideEvent, whole bool, more <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ride, more = d.partitions[n].Ride(name), d.waiting[rideKey(name)].rung
	if ride == nil {
		return nil, nil, sequence == 0, more
	}
	all := d.events[name]
	at, _ := slices.BinarySearchFunc(all, sequence+1, func(e *starlingv1.RideEvent, s int64) int { return int(e.GetSequence() - s) })
	events = slices.Clone(all[at:])
	whole = sequence <= ride.Sequence && int64(len(events)) == ride.Sequence-sequence
	return ride, events, whole, more
}

// boundTo returns the ride that a vehicle is bound to, nil if none, and what is
// closed when that changes, for a caller who has joined the vehicle's key.
func (d *directory) boundTo(vehicleID string) (*life.Ride, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	more := d.waiting[vehicleKey(vehicleID)].rung
	name, ok := d.vehicles[vehicleID]
	if !ok {
		return nil, more
	}
	n, err := partitionOf(name)
	if err != nil {
		return nil, more
	}
	return d.partitions[n].Ride(name), more
}

// reach waits until a partition of `rides` was read up to an offset.
func (d *directory) reach(ctx context.Context, n int32, next int64) error {
	defer d.join(partitionKey(n))()
	for {
		d.mu.Lock()
		there, ended, more := d.next[n] >= next, d.ended, d.waiting[partitionKey(n)].rung
		d.mu.Unlock()
		switch {
		case there:
			return nil
		case ended:
			return errStopped
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// page returns up to count rides behind a name, by name, that keep passes.
func (d *directory) page(after string, count int, keep func(*life.Ride) bool) []*life.Ride {
	d.mu.Lock()
	defer d.mu.Unlock()
	var rides []*life.Ride
	for n := range d.partitions {
		d.partitions[n].Each(func(r *life.Ride) {
			if r.Name > after && keep(r) {
				rides = append(rides, r)
			}
		})
	}
	slices.SortFunc(rides, func(a, b *life.Ride) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return rides[:min(count, len(rides))]
}
