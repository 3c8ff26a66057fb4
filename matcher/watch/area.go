package watch

import (
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/starling-fleet/starling/matcher/feed"
	"github.com/starling-fleet/starling/matcher/follow"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/matcher/query"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// WatchArea implements starlingv1.FleetServiceServer. The call sleeps until
// something changes in the cubes that cover its area, and then looks at what
// has changed there and nothing else. Only at first, and when more has changed
// than is remembered, does it look at the whole area.
func (s *Watcher) WatchArea(req *starlingv1.WatchAreaRequest, stream grpc.ServerStreamingServer[starlingv1.WatchAreaResponse]) error {
	if err := query.Serving(s.follower); err != nil {
		return err
	}
	var f query.Faults
	area, interval, token := f.Area("area", req.GetArea(), true), readInterval(&f, req.GetMinInterval()), resumeArea(&f, req.GetResumeToken())
	f.Filter(req.GetFilter(), new(follow.Moment))
	if err := f.Err(); err != nil {
		return err
	}
	a := areaWatch{watcher: s, req: req, stream: stream, interval: interval}
	// The feeds are read from here on, so whatever the first look misses comes
	// with the next.
	if a.feeds = s.feeds.areas.Add(area); a.feeds == nil {
		return query.Error(codes.ResourceExhausted, query.ReasonTooManyWatchers, "too many watch calls are open", query.RetryInfo())
	}
	defer s.feeds.areas.Remove(a.feeds)
	request := s.sessions.Hash(req)
	if token.session != 0 {
		a.session, a.turn = s.sessions.Resume(token.session, request)
	}
	if a.session == nil {
		token.update = 0
		if a.session, a.turn = s.sessions.Open(request, s.index.NewView(area)); a.session == nil {
			return sessionsFull()
		}
	}
	defer func() { s.sessions.Leave(a.session, a.turn) }()
	if err := a.begin(token.update); err != nil {
		return err
	}
	return a.follow()
}

func sessionsFull() error {
	return query.Error(codes.ResourceExhausted, query.ReasonTooManyWatchers, "calls that watch areas hold as much as the server allows", query.RetryInfo())
}

// areaWatch is one WatchArea call at work.
type areaWatch struct {
	watcher  *Watcher
	req      *starlingv1.WatchAreaRequest
	stream   grpc.ServerStreamingServer[starlingv1.WatchAreaResponse]
	interval time.Duration
	feeds    *feed.AreaWatcher
	session  *feed.Session
	turn     uint64
	stale    []int32 // as sent last
}

// areaUpdate is the content of an update.
type areaUpdate struct {
	snapshot bool
	changed  []liveindex.Vehicle
	left     []string
	number   uint32
	now      follow.Moment
}

// begin sends what has changed since an update of the session's, or a snapshot
// if there is none or it is not remembered.
func (a *areaWatch) begin(from uint32) error {
	var u areaUpdate
	err := a.look(&u, func(v *liveindex.View, f liveindex.Filter) {
		var ok bool
		if u.changed, u.left, ok = v.Resume(from, f); ok {
			return
		}
		u.snapshot = true
		v.Reset()
		u.changed, _ = v.Rescan(f)
	})
	if err != nil {
		return err
	}
	stale, numbers := a.staleness(u.now.MS)
	a.stale = numbers
	return a.send(&u, stale)
}

// look uses the session's view, unless another call has taken it over.
func (a *areaWatch) look(u *areaUpdate, use func(*liveindex.View, liveindex.Filter)) error {
	var f query.Faults
	u.now = a.watcher.follower.Moment()
	filter := f.Filter(a.req.GetFilter(), &u.now)
	vehicles := 0
	resumed, full := a.watcher.sessions.Use(a.session, a.turn, func(view *liveindex.View) {
		use(view, filter)
		u.number, vehicles = view.Number(), view.Len()
	})
	switch {
	case resumed:
		return query.Error(codes.Aborted, query.ReasonResumed, "another call goes on with this one's resume token")
	case full:
		a.watcher.sessions.Discard(a.session)
		return sessionsFull()
	}
	if vehicles > a.watcher.cfg.MaxAreaVehicles {
		a.watcher.sessions.Discard(a.session)
		return query.Error(codes.ResourceExhausted, query.ReasonAreaTooLarge, "more vehicles are inside the area than one call may watch; watch a smaller one")
	}
	return nil
}

// follow sends updates until the call ends.
func (a *areaWatch) follow() error {
	// Vehicles grow too old without a change.
	var aging <-chan time.Time
	if a.req.GetFilter().GetMaxAge() != nil || a.req.GetFilter().GetDispatchable() {
		tick := time.NewTicker(follow.StaleCheck)
		defer tick.Stop()
		aging = tick.C
	}
	p := pace{
		watcher: a.watcher, ctx: a.stream.Context(), interval: a.interval,
		wait: a.feeds.Wait, wake: a.feeds.Wake, tick: aging, update: a.update,
	}
	return p.follow()
}

// update sends what has changed, if anything has.
func (a *areaWatch) update() (sent bool, err error) {
	var u areaUpdate
	ids, lost := a.feeds.Changes()
	err = a.look(&u, func(v *liveindex.View, f liveindex.Filter) {
		if lost {
			a.watcher.areaRescans.Inc()
			u.changed, u.left = v.Rescan(f)
		} else {
			u.changed, u.left = v.Touch(ids, f)
		}
	})
	if err != nil {
		return false, err
	}
	stale, numbers := a.staleness(u.now.MS)
	if len(u.changed) == 0 && len(u.left) == 0 && slices.Equal(numbers, a.stale) {
		return false, nil
	}
	a.stale = numbers
	return true, a.send(&u, stale)
}

func (a *areaWatch) staleness(nowMS int64) (stale []*starlingv1.StalePartition, numbers []int32) {
	stale = query.StaleMessages(a.watcher.follower, nowMS)
	for _, s := range stale {
		numbers = append(numbers, s.Partition)
	}
	return stale, numbers
}

// send sends an update in as many parts as it needs.
func (a *areaWatch) send(u *areaUpdate, stale []*starlingv1.StalePartition) error {
	left := make([]string, len(u.left))
	for i, id := range u.left {
		left[i] = limits.VehicleNamePrefix + id
	}
	changed := u.changed
	u.changed = nil // what is sent is not kept while the rest waits for the client
	u.now.FreshenAll(changed)
	for {
		n := query.Fitting(changed)
		part := &starlingv1.WatchAreaResponse{Snapshot: u.snapshot, Changed: query.VehicleMessages(changed[:n], &u.now)}
		changed = slices.Clone(changed[n:])
		if len(changed) == 0 {
			n = min(len(left), maxLeftPerPart)
			part.Left, left = left[:n], left[n:]
		}
		part.More = len(changed) > 0 || len(left) > 0
		if !part.More {
			part.StalePartitions = stale
			part.ResumeToken = areaToken{session: a.session.ID, update: u.number}.encode()
		}
		if err := a.stream.Send(part); err != nil {
			return err
		}
		if !part.More {
			return nil
		}
	}
}

// maxLeftPerPart bounds the names in one message, each of at most 75 bytes: with
// a full load of vehicles they make 3.75 MiB.
const maxLeftPerPart = 10_000
