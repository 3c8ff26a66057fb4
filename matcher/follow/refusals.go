package follow

import (
	"strings"
	"sync"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// maxRefusals is how many vehicles that a tracker has refused are remembered,
// those that were refused last: about 150 bytes each.
const maxRefusals = 4096

// Refusal is why and when a tracker refused a vehicle's report last.
type Refusal struct {
	Reason starlingv1.Refusal
	// StreamTimeMS is the partition's stream time then, in milliseconds since the
	// Unix epoch.
	StreamTimeMS int64
}

// refusals remembers the vehicles that were refused last, so that whoever asks
// for one learns why it is not known.
type refusals struct {
	mu   sync.Mutex
	by   map[string]Refusal // under mu
	ring []string           // under mu; the oldest is at next once it is full
	next int                // under mu
}

func (r *refusals) note(id string, refusal Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by == nil {
		r.by = make(map[string]Refusal)
	}
	if _, known := r.by[id]; known {
		r.by[id] = refusal
		return
	}
	id = strings.Clone(id)
	if len(r.ring) < maxRefusals {
		r.ring = append(r.ring, id)
	} else {
		delete(r.by, r.ring[r.next])
		r.ring[r.next] = id
		r.next = (r.next + 1) % maxRefusals
	}
	r.by[id] = refusal
}

// Refused returns why a tracker refused the vehicle, if it is one of those that
// were refused last.
func (f *Follower) Refused(id string) (Refusal, bool) {
	f.refusals.mu.Lock()
	defer f.refusals.mu.Unlock()
	refusal, ok := f.refusals.by[id]
	return refusal, ok
}
