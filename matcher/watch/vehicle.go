package watch

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/matcher/follow"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/matcher/playout"
	"github.com/starling-fleet/starling/matcher/query"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

const (
	// catchUpWait is how long a watch that resumes waits for a matcher that has
	// not yet read what the client received elsewhere.
	catchUpWait = 5 * time.Second
)

// Bounds of a play-out's delay; fleet.proto states them.
const (
	minPlayback = time.Second
	maxPlayback = 15 * time.Minute
)

// WatchVehicle implements starlingv1.FleetServiceServer.
func (s *Watcher) WatchVehicle(req *starlingv1.WatchVehicleRequest, stream grpc.ServerStreamingServer[starlingv1.WatchVehicleResponse]) error {
	if err := query.Serving(s.follower); err != nil {
		return err
	}
	var f query.Faults
	id, delay := f.Vehicle("name", req.GetName()), playbackDelay(&f, req.GetPlaybackDelay())
	token, resumes := resumeVehicle(&f, req.GetResumeToken(), id)
	if err := f.Err(); err != nil {
		return err
	}
	wake := s.feeds.vehicles.Add(id)
	if wake == nil {
		return query.Error(codes.ResourceExhausted, query.ReasonTooManyWatchers, "too many watch calls are open", query.RetryInfo())
	}
	defer s.feeds.vehicles.Remove(wake)
	w := vehicleWatch{watcher: s, stream: stream, id: id, number: s.follower.PartitionOf(id), wake: wake.Wake, resumes: resumes}
	if resumes {
		if err := w.catchUp(token.seenMS); err != nil {
			return err
		}
	}
	if delay > 0 {
		w.cursor = playout.NewCursor(delay)
		s.playout.Join(id, w.cursor)
		defer s.playout.Leave(w.cursor)
		w.begin(token)
	}
	return w.run()
}

func playbackDelay(f *query.Faults, d *durationpb.Duration) time.Duration {
	if d == nil {
		return 0
	}
	f.Need(d.CheckValid() == nil && d.AsDuration() >= minPlayback && d.AsDuration() <= maxPlayback,
		"playback_delay", d.AsDuration(), "between %v and %v", minPlayback, maxPlayback)
	return d.AsDuration()
}

// vehicleWatch is one WatchVehicle call at work.
type vehicleWatch struct {
	watcher *Watcher
	stream  grpc.ServerStreamingServer[starlingv1.WatchVehicleResponse]
	id      string
	number  int32 // the vehicle's partition
	wake    <-chan struct{}
	resumes bool // until the first message: the token is honoured

	last sighting

	// A play-out has a cursor, the fix that it has sent last, if it has that
	// from the buffer, and where its cell is.
	cursor     *playout.Cursor
	fix        playout.Fix
	fromBuffer bool
	cell       h3.Cursor
	nextFix    time.Duration
}

// sighting is what a watch has sent last: a change is a difference from it.
type sighting struct {
	vehicle      liveindex.Vehicle
	known, stale bool
}

// catchUp waits until this matcher has read the report that the client knows
// already. One that takes too long does not resume.
func (w *vehicleWatch) catchUp(seenMS int64) error {
	timeout := time.NewTimer(catchUpWait)
	defer timeout.Stop()
	for {
		if v, known := w.watcher.index.Get(w.id); seenMS == 0 || known && v.SeenTimeMS >= seenMS {
			return nil
		}
		select {
		case <-timeout.C:
			w.resumes = false
			return nil
		case <-w.wake:
		case <-w.stream.Context().Done():
			return w.stream.Context().Err()
		case <-w.watcher.stopped:
			return query.HasStopped()
		}
	}
}

// begin sets a play-out's first state.
func (w *vehicleWatch) begin(token vehicleToken) {
	live, _ := w.watcher.index.Get(w.id)
	nowMS := w.watcher.now().UnixMilli()
	if w.resumes {
		w.fix, w.fromBuffer = w.cursor.Resume(nowMS, token.Position)
		w.resumes = w.fromBuffer
	}
	if !w.resumes {
		w.fix, w.fromBuffer = w.cursor.Start(nowMS, &live)
	}
}

// run sends the vehicle at first and after each change.
func (w *vehicleWatch) run() error {
	tick := time.NewTicker(follow.StaleCheck)
	defer tick.Stop()
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	for first := true; ; first = false {
		var s sighting
		s.vehicle, s.known = w.watcher.index.Get(w.id)
		now := w.watcher.follower.Moment()
		nowMS := now.Of(w.id)
		_, s.stale = w.watcher.follower.Staleness(w.number, now.MS)
		seenMS := s.vehicle.SeenTimeMS
		now.Freshen(&s.vehicle)
		w.nextFix = -1
		if w.cursor != nil && s.known {
			w.play(&s, nowMS, first)
		}
		if first || s != w.last {
			if err := w.send(&s, &now, seenMS); err != nil {
				return err
			}
			w.last = s
		}
		if w.nextFix >= 0 {
			due.Reset(w.nextFix)
		}
		select {
		case <-w.stream.Context().Done():
			return w.stream.Context().Err()
		case <-w.watcher.stopped:
			return query.HasStopped()
		case <-w.wake:
		case <-tick.C:
		case <-due.C:
		}
	}
}

// play puts the fix that is due into a sighting. What every report changes and
// no fix carries stays as it was sent, lest a report be sent before its fixes.
func (w *vehicleWatch) play(s *sighting, nowMS int64, first bool) {
	if !first {
		fix, due, next := w.cursor.Play(nowMS)
		if w.nextFix = next; due {
			w.fix, w.fromBuffer = fix, true
		}
	} else {
		w.nextFix = 0
	}
	switch last := &w.last.vehicle; {
	case w.fromBuffer:
		w.fix.Apply(&s.vehicle, &w.cell)
	case !first && w.last.known && last.DeviceTimeMS != 0:
		// The state that the play-out began with stands until a fix is due.
		began := *last
		began.Availability, began.Attributes = s.vehicle.Availability, s.vehicle.Attributes
		began.DerivedAvailability, began.Dispatchable, began.Conflicting = s.vehicle.DerivedAvailability, s.vehicle.Dispatchable, s.vehicle.Conflicting
		s.vehicle = began
	}
	if w.last.known && w.last.vehicle.DeviceTimeMS == s.vehicle.DeviceTimeMS {
		s.vehicle.SeenTimeMS, s.vehicle.Counts = w.last.vehicle.SeenTimeMS, w.last.vehicle.Counts
		s.vehicle.DeviceClockAheadMS = w.last.vehicle.DeviceClockAheadMS
	}
}

func (w *vehicleWatch) send(s *sighting, now *follow.Moment, seenMS int64) error {
	out := &starlingv1.WatchVehicleResponse{Unknown: !s.known, Stale: s.stale, Resumed: w.resumes}
	w.resumes = false
	if s.known {
		out.Vehicle = query.VehicleMessage(&s.vehicle, now)
	} else {
		out.Vehicle = &starlingv1.Vehicle{Name: limits.VehicleNamePrefix + w.id}
	}
	token := vehicleToken{seenMS: seenMS}
	if w.cursor != nil {
		out.Playback = w.cursor.Message(now.Of(w.id), s.vehicle.DeviceTimeMS)
		token.Position = w.cursor.Position()
	}
	out.ResumeToken = token.encode(w.id)
	return w.stream.Send(out)
}
