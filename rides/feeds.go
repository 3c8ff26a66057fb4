package rides

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/rides/events"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// feeds are the rides that somebody follows at this node, whoever owns them. What
// is pushed is only believed when it is a ride's next event; whatever else shows
// that there is more is asked of the store, then of the owner, then of the log.
type feeds struct {
	role *Rides
	mu   sync.Mutex
	all  map[string]*feed
}

// feed is one ride.
type feed struct {
	ride      string
	partition int32
	followers int           // under the lock of feeds
	filling   chan struct{} // has an element while somebody asks for what is missing

	mu sync.Mutex
	// steps are the events behind base without a gap, once known.
	known bool
	base  int64
	steps []*starlingv1.RideEventAndRide
	// heard is the largest number that was reported to exist; unsure is true when there
	// may be more.
	heard  int64
	unsure bool
	// ended is the number of the event with which the ride has ended, 0 before.
	ended int64
	bell  *bell
}

// maxSteps bounds the events that a feed keeps. Who is further back asks.
const maxSteps = 256

func newFeeds(role *Rides) *feeds { return &feeds{role: role, all: make(map[string]*feed)} }

// join follows a ride; leave must be called in the end.
func (fs *feeds) join(ctx context.Context, ride string, partition int32) (f *feed, leave func()) {
	f, first := fs.enter(ride, partition)
	if first {
		// Without it the comparisons find what is missed.
		fs.command(context.WithoutCancel(ctx), fs.role.store.Subscribe, ride)
	}
	return f, func() {
		if fs.exit(f) {
			fs.command(context.WithoutCancel(ctx), fs.role.store.Unsubscribe, ride)
			if fs.get(ride) != nil {
				// Somebody has joined in between, whose subscription this may have ended.
				fs.command(context.WithoutCancel(ctx), fs.role.store.Subscribe, ride)
			}
		}
	}
}

// enter adds a follower of a ride, who may be its first.
func (fs *feeds) enter(ride string, partition int32) (f *feed, first bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f, known := fs.all[ride]
	if !known {
		f = &feed{ride: ride, partition: partition, filling: make(chan struct{}, 1), bell: newBell()}
		fs.all[ride] = f
	}
	f.followers++
	return f, !known
}

// exit takes a follower out, who may be the last.
func (fs *feeds) exit(f *feed) (last bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.followers--
	if last = f.followers == 0; last {
		delete(fs.all, f.ride)
	}
	return last
}

// commandTimeout bounds what a store is asked.
const commandTimeout = time.Second

func (fs *feeds) command(ctx context.Context, do func(context.Context, string) error, ride string) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	if err := do(ctx, ride); err != nil {
		fs.role.metrics.storeFailures.Inc()
	}
}

func (fs *feeds) get(ride string) *feed {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.all[ride]
}

func (fs *feeds) byPartition() map[int32][]*feed {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	all := make(map[int32][]*feed)
	for _, f := range fs.all {
		all[f.partition] = append(all[f.partition], f)
	}
	return all
}

// deliver takes what a store pushes.
func (fs *feeds) deliver(m events.Message) {
	f := fs.get(m.Ride)
	if f == nil {
		return
	}
	if m.Sequence == 0 {
		f.doubt()
		return
	}
	if next, ok := decode(m); ok {
		f.push(next)
	} else {
		f.doubt()
	}
}

// decode reads what a store has of a ride, if it is whole and of that ride.
func decode(m events.Message) (*starlingv1.RideEventAndRide, bool) {
	x := &starlingv1.RideEventAndRide{}
	err := proto.Unmarshal(m.Value, x)
	e := x.GetEvent()
	return x, err == nil && e.GetRide() == m.Ride && e.GetSequence() == m.Sequence && x.GetRide().GetSequence() == m.Sequence
}

func (f *feed) head() int64 { return f.base + int64(len(f.steps)) }

// doubt notes that events may have been missed.
func (f *feed) doubt() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unsure = true
	f.bell.ring()
}

// last returns the number of the last event that is known or reported to exist.
func (f *feed) last() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return max(f.head(), f.heard)
}

// endedAt returns whether the ride has ended with the event of a number.
func (f *feed) endedAt(sequence int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ended == sequence && sequence > 0
}

// upTo returns whether everything up to a number is known here, and nothing is
// reported to be behind it.
func (f *feed) upTo(sequence int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.known && f.head() == sequence && f.heard <= sequence
}

// hear notes that there is an event of a number.
func (f *feed) hear(sequence int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if sequence > f.heard {
		f.heard = sequence
		f.bell.ring()
	}
}

// push takes an event: the next is kept, of one further on it is noted that it
// exists.
func (f *feed) push(x *starlingv1.RideEventAndRide) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sequence := x.GetEvent().GetSequence()
	f.heard = max(f.heard, sequence)
	if f.known && sequence == f.head()+1 {
		f.extend(x)
	}
	f.bell.ring()
}

// extend adds the next event. The lock is held.
func (f *feed) extend(x *starlingv1.RideEventAndRide) {
	f.steps = append(f.steps, x)
	f.stands(x.GetRide())
	if over := len(f.steps) - maxSteps; over > 0 {
		f.steps, f.base = append([]*starlingv1.RideEventAndRide(nil), f.steps[over:]...), f.base+int64(over)
	}
}

// stands notes whether the ride has ended. The lock is held.
func (f *feed) stands(ride *starlingv1.Ride) {
	if phaseEnded(ride.GetPhase()) {
		f.ended = ride.GetSequence()
	}
}

// next returns the events behind a number, or that they have to be asked for, and
// what is closed when there is more.
func (f *feed) next(after int64) (steps []*starlingv1.RideEventAndRide, ask bool, more <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	more = f.bell.rung
	head := f.head()
	if !f.known || f.unsure || f.heard > head || after < f.base || after > head {
		return nil, true, more
	}
	return f.steps[after-f.base:], false, more
}

// fill asks for the events behind a number. It returns the ride as it stands when
// they are not to be had; found is false when there is no such ride.
func (fs *feeds) fill(ctx context.Context, f *feed, after int64) (snapshot *starlingv1.Ride, found bool, err error) {
	select {
	case f.filling <- struct{}{}:
		defer func() { <-f.filling }()
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	from, heard, satisfied := f.missing(after)
	if satisfied {
		return nil, true, nil // somebody else has asked
	}
	resumed, err := fs.role.resume(ctx, f, from, heard)
	if err != nil {
		f.unanswered()
		return nil, false, err
	}
	return f.merge(resumed, from, heard)
}

// unanswered has whoever asks next ask again.
func (f *feed) unanswered() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unsure = true
}

// missing returns from where events have to be asked for by who has those up to
// after, and the largest number reported to exist; satisfied means from nowhere.
func (f *feed) missing(after int64) (from, heard int64, satisfied bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	reaches := f.known && f.base <= after && after <= f.head()
	from = after
	if reaches {
		from = f.head()
	}
	satisfied = reaches && !f.unsure && f.heard <= f.head()
	f.unsure = false // what comes in doubt from here on is asked again
	return from, f.heard, satisfied
}

// merge takes the answer about events behind from, asked when heard was the largest
// number that was reported to exist. Whoever waits is woken when it shows more: the
// one who has asked may be another.
func (f *feed) merge(in *starlingv1.ResumeRideResponse, from, heard int64) (snapshot *starlingv1.Ride, found bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if before := f.head(); f.known {
		defer func() {
			if f.head() > before || f.heard > f.head() {
				f.bell.ring()
			}
		}()
	}
	// Whoever answers has all that there is: what was reported beyond it is untrue,
	// unless it was reported since.
	settle := func() {
		if f.heard == heard {
			f.heard = f.head()
		}
	}
	f.stands(in.GetRide())
	if !in.GetRecovered() {
		switch ride := in.GetRide(); {
		case ride == nil:
		case !f.known:
			f.known, f.base, f.steps = true, ride.GetSequence(), nil
			settle()
		default: // it may show more than the others here know
			f.heard = max(f.heard, ride.GetSequence())
		}
		return in.GetRide(), in.GetRide() != nil, nil
	}
	switch {
	case !f.known || from < f.base || from > f.head():
		later := f.steps
		had := f.base
		f.known, f.base, f.steps = true, from, in.GetEvents()
		if head := f.head(); had <= head && had+int64(len(later)) > head {
			f.steps = append(f.steps, later[head-had:]...)
		}
	default:
		for _, x := range in.GetEvents() {
			if x.GetEvent().GetSequence() == f.head()+1 {
				f.extend(x)
			}
		}
	}
	settle()
	return nil, true, nil
}

// resume finds the events of a ride behind a number, of which there should be some
// up to heard.
func (r *Rides) resume(ctx context.Context, f *feed, after, heard int64) (*starlingv1.ResumeRideResponse, error) {
	if r.leads(f.partition) {
		return r.ownedEvents(ctx, f.partition, f.ride, after)
	}
	if in := r.stored(ctx, f, after, heard); in != nil {
		return in, nil
	}
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var in *starlingv1.ResumeRideResponse
	err := r.peers.ask(asking, f.partition, func(ctx context.Context, c starlingv1.RideOwnerServiceClient) (err error) {
		in, err = c.ResumeRide(ctx, &starlingv1.ResumeRideRequest{Name: ridePrefix + f.ride, AfterSequence: after})
		return err
	})
	if err == nil {
		r.metrics.resumes.WithLabelValues("owner").Inc()
		return in, nil
	}
	if in := r.logged(ctx, f, after); in != nil {
		return in, nil
	}
	return nil, err
}

// askTimeout bounds a question to an owner.
const askTimeout = 3 * time.Second

// stored returns what a shared store has of a ride behind a number, if that is
// whole as far as anybody knows; the comparisons find what it has lost at its end.
func (r *Rides) stored(ctx context.Context, f *feed, after, heard int64) *starlingv1.ResumeRideResponse {
	if !r.store.Shared() || !r.store.Healthy() || after == none {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	messages, err := r.store.Since(ctx, f.ride, after)
	if err != nil {
		r.metrics.storeFailures.Inc()
		return nil
	}
	out := &starlingv1.ResumeRideResponse{Recovered: true}
	for i, m := range messages {
		x, ok := decode(m)
		if !ok || m.Sequence != after+int64(i)+1 {
			return nil
		}
		out.Events, out.Ride = append(out.Events, x), x.GetRide()
	}
	if out.Ride.GetSequence() < heard || out.Ride == nil && !f.upTo(after) {
		return nil // the store has lost some, or nothing is known yet
	}
	r.metrics.resumes.WithLabelValues("store").Inc()
	return out
}

// logged reads a ride's events from the log itself, when neither store nor owner
// answers. It costs a reading of the whole partition, so one at a time does.
func (r *Rides) logged(ctx context.Context, f *feed, after int64) *starlingv1.ResumeRideResponse {
	select {
	case r.scanning <- struct{}{}:
		defer func() { <-r.scanning }()
	default:
		return nil
	}
	x := newIndexed(0, nil)
	empty := false
	scanCtx, stop := context.WithCancel(ctx)
	defer stop()
	err := scan(scanCtx, r.log, f.partition, func(batch eventlog.Batch, end int64) (bool, error) {
		for _, stored := range batch.Records {
			s, err := x.apply(&stored)
			if err != nil {
				return false, err
			}
			if s != nil && s.ride.Name == f.ride {
				x.steps[f.ride] = append(x.steps[f.ride], *s)
			}
		}
		return x.next < end, nil
	}, func(first, end int64) {
		if first >= end {
			empty = true
			stop()
		}
	})
	if err != nil && (!empty || !errors.Is(err, context.Canceled)) {
		return nil
	}
	steps, whole := x.since(f.ride, after)
	r.metrics.resumes.WithLabelValues("log").Inc()
	return r.resumed(x.state.Ride(f.ride), x.state.RequestsBelow, steps, whole)
}
