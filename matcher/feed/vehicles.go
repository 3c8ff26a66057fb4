package feed

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// Vehicles are the open watch calls, by vehicle id. Notifying them of a change
// costs next to nothing while nobody watches.
type Vehicles struct {
	max    int64
	open   atomic.Int64
	seed   maphash.Seed
	shards [64]watcherShard
}

type watcherShard struct {
	open atomic.Int64 // lets the writer pass without the lock
	mu   sync.Mutex
	byID map[string]map[*VehicleWatcher]struct{}
}

// VehicleWatcher is one watch call. Its channel holds at most one wake-up: the call
// then looks at the newest state, so that a slow one skips what is between.
type VehicleWatcher struct {
	id   string
	Wake chan struct{}
}

// NewVehicles returns Vehicles for at most so many watch calls.
func NewVehicles(limit int) *Vehicles {
	w := &Vehicles{max: int64(limit), seed: maphash.MakeSeed()}
	for i := range w.shards {
		w.shards[i].byID = map[string]map[*VehicleWatcher]struct{}{}
	}
	return w
}

func (w *Vehicles) shard(id string) *watcherShard {
	return &w.shards[maphash.String(w.seed, id)%uint64(len(w.shards))]
}

// Add opens a watch, or returns nil if there are too many.
func (w *Vehicles) Add(id string) *VehicleWatcher {
	if w.open.Add(1) > w.max {
		w.open.Add(-1)
		return nil
	}
	out := &VehicleWatcher{id: id, Wake: make(chan struct{}, 1)}
	s := w.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID[id] == nil {
		s.byID[id] = map[*VehicleWatcher]struct{}{}
	}
	s.byID[id][out] = struct{}{}
	s.open.Add(1)
	return out
}

// Remove ends a watch.
func (w *Vehicles) Remove(one *VehicleWatcher) {
	s := w.shard(one.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID[one.id], one)
	if len(s.byID[one.id]) == 0 {
		delete(s.byID, one.id)
	}
	s.open.Add(-1)
	w.open.Add(-1)
}

// Changed wakes the watchers of a vehicle. It never waits for them.
func (w *Vehicles) Changed(id string) {
	if w.open.Load() == 0 {
		return
	}
	s := w.shard(id)
	if s.open.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for one := range s.byID[id] {
		select {
		case one.Wake <- struct{}{}:
		default:
		}
	}
}

// Open returns the number of open watch calls.
func (w *Vehicles) Open() int64 { return w.open.Load() }
