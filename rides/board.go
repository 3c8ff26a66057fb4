package rides

import (
	"maps"
	"sync"
	"time"

	"github.com/starling-fleet/starling/schemas/wire"
)

// board keeps, for all owners of the process, what the trackers have published:
// how far each partition of `tracks` was read, and the vehicles that are
// reserved. Outcomes are state, so an owner that falls behind is given the newest
// of each vehicle and no queue grows.
//
// One goroutine, the follower's, calls observe; owners join and leave.
type board struct {
	epoch      int64
	partitions int32

	mu       sync.Mutex
	progress []progress
	// reserved are the vehicles with a reservation, as last published.
	reserved map[string]sighting
	owners   map[int32]*inbox
	// watched are the vehicles that rides of this process's partitions are bound
	// to, which their owners follow whether or not they are reserved.
	watched map[string]int32
	// followed are the vehicles that somebody follows at this node.
	followed map[string]*vehicleWatch
}

// vehicleWatch is a vehicle that is followed: its newest view.
type vehicleWatch struct {
	board *board
	// Under the board's lock:
	followers int
	newest    sighting
	bell      *bell
}

// progress is how far a partition of `tracks` was read.
type progress struct {
	source, streamMS int64
	read             bool
}

// sighting is a vehicle as the record of a source offset published it.
type sighting struct {
	source int64
	view   wire.View
	// ride is the partition of rides whose ride it is reserved for, -1 for none.
	ride int32
}

// inbox is what an owner has not taken yet.
type inbox struct {
	board *board
	// wake has a value when there is something to be taken.
	wake chan struct{}

	// Under the board's lock:
	sightings map[string]sighting
	order     []string
	// soon is true when wake will have a value within positionDelay.
	soon bool
	// taken is the progress that the owner has taken.
	taken []progress
}

func newBoard(epoch int64, partitions int32) *board {
	return &board{
		epoch: epoch, partitions: partitions, progress: make([]progress, partitions),
		reserved: make(map[string]sighting), owners: make(map[int32]*inbox), watched: make(map[string]int32),
		followed: make(map[string]*vehicleWatch),
	}
}

// observe takes the next record of a partition of `tracks`, which it does not
// keep.
func (b *board) observe(n int32, t *wire.Track) {
	if t.Epoch != b.epoch {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.progress[n]; p.read && t.SourceOffset <= p.source {
		return
	}
	if t.HasLive {
		b.see(t.SourceOffset, &t.Live)
	}
	for i := range t.Fired {
		switch due := &t.Fired[i]; {
		case due.HasLive:
			b.see(t.SourceOffset, &due.Live)
		case due.Forgotten:
			delete(b.reserved, due.VehicleID)
		}
	}
	b.progress[n] = progress{t.SourceOffset, t.ClockMS, true}
}

func (b *board) see(source int64, v *wire.View) {
	old, was := b.reserved[v.VehicleID]
	watcher, watched := b.watched[v.VehicleID]
	watch := b.followed[v.VehicleID]
	if v.Reservation == nil && !was && !watched && watch == nil {
		return // most of the fleet
	}
	now := sighting{source: source, view: *v, ride: -1}
	now.view.HasAttributes, now.view.Attributes = false, wire.Attributes{} // they are the record's
	if watch != nil {
		watch.newest = now
		watch.bell.ring()
	}
	if v.Reservation == nil {
		delete(b.reserved, v.VehicleID)
	} else {
		if n, err := partitionOf(v.Reservation.Ride); err == nil {
			now.ride = n
			moved := was && old.ride == n && *old.view.Reservation == *v.Reservation
			b.deliver(n, now, moved)
		}
		b.reserved[v.VehicleID] = now
	}
	if was && old.ride != now.ride {
		b.deliver(old.ride, now, false)
	}
	if watched && watcher != now.ride {
		b.deliver(watcher, now, false)
	}
}

// follow keeps the newest view of a vehicle until leave is called, which must be
// done.
func (b *board) follow(vehicleID string) (w *vehicleWatch, leave func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w, ok := b.followed[vehicleID]
	if !ok {
		w = &vehicleWatch{board: b, newest: b.reserved[vehicleID], bell: newBell()}
		b.followed[vehicleID] = w
	}
	w.followers++
	return w, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if w.followers--; w.followers == 0 {
			delete(b.followed, vehicleID)
		}
	}
}

// now returns the newest view, which is empty when the vehicle was neither
// reserved nor seen since it is followed, and what is closed at the next.
func (w *vehicleWatch) now() (sighting, <-chan struct{}) {
	w.board.mu.Lock()
	defer w.board.mu.Unlock()
	return w.newest, w.bell.rung
}

// deliver puts a sighting into the inbox of a partition that is owned here. One of a
// vehicle that has only moved may wait a little for others.
func (b *board) deliver(partition int32, s sighting, moved bool) {
	switch in := b.owners[partition]; {
	case in == nil:
	case moved:
		in.keep(s)
		in.signalSoon()
	default:
		in.put(s)
	}
}

// join opens the inbox of the owner of a partition of rides, with all that
// concerns it so far.
func (b *board) join(partition int32) *inbox {
	b.mu.Lock()
	defer b.mu.Unlock()
	in := &inbox{
		board: b, wake: make(chan struct{}, 1), sightings: make(map[string]sighting), taken: make([]progress, b.partitions),
	}
	for _, s := range b.reserved {
		if s.ride == partition {
			in.put(s)
		}
	}
	b.owners[partition] = in
	in.signal()
	return in
}

// leave closes an inbox, unless another owner of the partition has joined since.
func (b *board) leave(partition int32, in *inbox) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.owners[partition] == in {
		delete(b.owners, partition)
		b.watch(partition, nil)
	}
}

// put keeps a sighting and wakes the owner. The board's lock is held.
func (in *inbox) put(s sighting) {
	in.keep(s)
	in.signal()
}

// keep keeps the newest sighting of a vehicle. The board's lock is held.
func (in *inbox) keep(s sighting) {
	if _, there := in.sightings[s.view.VehicleID]; !there {
		in.order = append(in.order, s.view.VehicleID)
	}
	in.sightings[s.view.VehicleID] = s
}

// positionDelay is how long the position of a vehicle may wait for others until its
// ride's owner looks whether the vehicle has arrived: with thousands of rides under
// way owners would wake for each fix.
const positionDelay = 50 * time.Millisecond

// signalSoon wakes the owner within positionDelay. The board's lock is held.
func (in *inbox) signalSoon() {
	if in.soon {
		return
	}
	in.soon = true
	time.AfterFunc(positionDelay, func() {
		in.board.mu.Lock()
		defer in.board.mu.Unlock()
		if in.soon {
			in.signal()
		}
	})
}

func (in *inbox) signal() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// take returns what has come since the last call: the vehicles, and how far the
// partitions were read when those were all. Progress alone wakes nobody.
func (in *inbox) take() ([]sighting, map[int32]progress) {
	in.board.mu.Lock()
	defer in.board.mu.Unlock()
	sightings := make([]sighting, 0, len(in.order))
	for _, id := range in.order {
		sightings = append(sightings, in.sightings[id])
	}
	advanced := make(map[int32]progress)
	for n, p := range in.board.progress {
		if p != in.taken[n] {
			advanced[int32(n)], in.taken[n] = p, p
		}
	}
	in.sightings, in.order, in.soon = make(map[string]sighting), nil, false
	return sightings, advanced
}

// watch sets which vehicles the owner of a partition follows in any case. The
// board's lock is held.
func (b *board) watch(partition int32, vehicles []string) {
	maps.DeleteFunc(b.watched, func(_ string, n int32) bool { return n == partition })
	for _, id := range vehicles {
		b.watched[id] = partition
	}
}
