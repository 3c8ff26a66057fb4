package matcher_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/matcher/follow"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

var ctx = context.Background()

func get(s *service, id string) (*starlingv1.Vehicle, error) {
	return s.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: "vehicles/" + id})
}

func TestRebuildAtStart(t *testing.T) {
	w := newWorld(t)
	for i := range 500 {
		w.report(w.at(fmt.Sprint("v", i%100), float64(i)/100, 1))
	}
	s := w.startReady()
	require.EqualValues(t, 100, s.metric("vehicles"))
	for i := range 100 {
		v, err := get(s, fmt.Sprint("v", i))
		require.NoError(t, err)
		require.Equal(t, float64(400+i)/100, v.Position.Latitude)
	}
	w.pass(time.Second)
	w.report(w.at("v7", 50, 2))
	s.seen("v7", startMS+1000)
}

// heldLog lets a test hold back what a reader is given.
type heldLog struct {
	follow.Log
	release chan struct{}
}

type heldReader struct {
	eventlog.Reader
	release chan struct{}
}

func (l heldLog) NewReader(ctx context.Context, topic string, start map[int32]int64) (eventlog.Reader, error) {
	r, err := l.Log.NewReader(ctx, topic, start)
	return heldReader{r, l.release}, err
}

func (r heldReader) Poll(ctx context.Context) (eventlog.Batch, error) {
	select {
	case <-r.release:
		return r.Reader.Poll(ctx)
	case <-ctx.Done():
		return eventlog.Batch{}, ctx.Err()
	}
}

func TestNotServedBeforeCaughtUp(t *testing.T) {
	w := newWorld(t)
	w.report(w.at("a", 1, 1))
	w.report(w.at(stranger("a"), 1, 1))
	release := make(chan struct{})
	m, err := matcher.New(matcher.DefaultConfig(), matcher.Deps{Log: heldLog{w.log, release}, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler), Now: w.now})
	require.NoError(t, err)
	client := dial(t, m)
	runCtx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- m.Run(runCtx) }()

	unavailable := func(reason string) {
		t.Helper()
		_, err := client.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: "vehicles/a"})
		require.Equal(t, codes.Unavailable, status.Code(err))
		require.Equal(t, reason, detail[*errdetails.ErrorInfo](t, err).Reason)
		require.Positive(t, detail[*errdetails.RetryInfo](t, err).RetryDelay.AsDuration())
		_, err = client.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{}})
		require.Equal(t, codes.Unavailable, status.Code(err))
		_, err = client.ListVehicles(ctx, &starlingv1.ListVehiclesRequest{})
		require.Equal(t, codes.Unavailable, status.Code(err))
		stream, err := client.WatchVehicle(ctx, &starlingv1.WatchVehicleRequest{Name: "vehicles/a"})
		require.NoError(t, err)
		_, err = stream.Recv()
		require.Equal(t, codes.Unavailable, status.Code(err))
	}
	unavailable("REBUILDING")
	release <- struct{}{} // the first partition's records
	unavailable("REBUILDING")
	require.False(t, m.Ready())
	close(release)
	require.Eventually(t, m.Ready, 10*time.Second, time.Millisecond)
	_, err = client.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: "vehicles/a"})
	require.NoError(t, err)

	stop()
	require.NoError(t, <-ended)
	unavailable("STOPPED")
}

func TestEmptyLogServesAtOnce(t *testing.T) {
	w := newWorld(t)
	s := w.startReady()
	_, err := get(s, "a")
	require.Equal(t, codes.NotFound, status.Code(err))
	w.report(w.at("a", 1, 1))
	s.seen("a", startMS)
}

func TestRepeatsAreDropped(t *testing.T) {
	w := newWorld(t)
	first, p := w.at("a", 1, 1), partitionOf("a")
	w.report(first)
	w.pass(time.Second)
	w.report(w.at("a", 2, 2))
	s := w.startReady()
	// A tracker that restarts publishes both again, and goes on.
	repeat := &wire.Track{Epoch: w.epoch, SourceOffset: 0, PreviousSourceOffset: -1, ClockMS: startMS, HasLive: true, Live: first}
	w.append(p, repeat)
	w.append(p, &wire.Track{Epoch: w.epoch, SourceOffset: 1, PreviousSourceOffset: 0, ClockMS: startMS + 1000})
	s.eventually(func() bool { return s.metric("repeats_total") == 2 })
	v, err := get(s, "a")
	require.NoError(t, err)
	require.Equal(t, 2.0, v.Position.Latitude, "a repeat took the vehicle back")
	w.pass(time.Second)
	w.report(w.at("a", 3, 3))
	s.seen("a", startMS+2000)
}

// TestGapIsFilled: what was published behind a failed append does not count
// until the owner has published the missing record again.
func TestGapIsFilled(t *testing.T) {
	for name, servesBefore := range map[string]bool{"while serving": true, "during the rebuild": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			id, other := "a", sibling("a")
			p := partitionOf(id)
			w.report(w.at(other, 1, 1))
			var s *service
			if servesBefore {
				s = w.startReady()
			}
			lost := w.next(p)
			lost.HasLive, lost.Live = true, w.at(id, 5, 5)
			w.pass(time.Second)
			behind := w.next(p)
			behind.HasLive, behind.Live = true, w.at(other, 2, 2)
			w.append(p, behind)
			if servesBefore {
				s.eventually(func() bool { return s.metric("skipped_total") == 1 })
				v, err := get(s, other)
				require.NoError(t, err)
				require.Equal(t, 1.0, v.Position.Latitude, "the record behind the gap must wait")
			}
			// The next owner takes long, and begins at its checkpoint.
			w.pass(10 * time.Minute)
			w.append(p, &wire.Track{Epoch: w.epoch, SourceOffset: 0, PreviousSourceOffset: -1, ClockMS: startMS})
			w.append(p, lost)
			w.append(p, behind)
			if !servesBefore {
				s = w.startReady()
			}
			s.seen(other, startMS+1000)
			s.seen(id, startMS)
			require.EqualValues(t, 1, s.metric("gaps_total"))
			require.EqualValues(t, 1, s.metric("skipped_total"))
			require.EqualValues(t, 1, s.metric("repeats_total"))
		})
	}
}

func TestGapThatStaysStops(t *testing.T) {
	w := newWorld(t)
	w.report(w.at("a", 1, 1))
	s := w.startReady()
	p := partitionOf("a")
	w.next(p) // never published
	w.report(w.at("a", 2, 2))
	w.pass(time.Hour) // in which no tracker runs
	for range 12 {
		w.tick(p)
		w.pass(5 * time.Second)
	}
	s.eventually(func() bool { return s.metric("skipped_total") == 13 })
	require.True(t, s.role.Ready())
	w.pass(time.Millisecond)
	w.tick(p)
	require.ErrorContains(t, <-s.failed, "gap")
	s.failed <- nil
	require.EqualValues(t, 1, s.metric("gaps_total"))
	require.False(t, s.role.Ready())
	alarmtest.Raised(t, s.registry, "starling_matcher_gaps_total")
	alarmtest.RaisedTo(t, s.registry, "starling_matcher_ready", func(ready float64) bool { return ready == 0 })
	_, err := get(s, "a")
	require.Equal(t, codes.Unavailable, status.Code(err))
}

func TestGapThatStaysDuringRebuildStartsOver(t *testing.T) {
	w := newWorld(t)
	id := "a"
	p, other := partitionOf(id), sibling(id)
	w.report(w.at(id, 1, 1))
	w.next(p) // lost
	w.report(w.at(other, 2, 2))
	w.report(w.at(stranger(id), 3, 3))
	for range 13 {
		w.pass(5 * time.Second)
		w.tick(p)
	}
	s := w.startReady()
	require.EqualValues(t, 1, s.metric("gaps_total"))
	_, err := get(s, id)
	require.Equal(t, codes.NotFound, status.Code(err), "what was read before the gap may be wrong")
	for _, known := range []string{other, stranger(id)} {
		_, err = get(s, known)
		require.NoError(t, err, known)
	}
	w.pass(time.Second)
	w.report(w.at(id, 4, 4))
	s.seen(id, w.nowMS.Load())
}

// sibling returns another vehicle of the same partition.
func sibling(id string) string {
	for i := 0; ; i++ {
		if s := fmt.Sprint("s", i); partitionOf(s) == partitionOf(id) {
			return s
		}
	}
}

// stranger returns a vehicle of another partition.
func stranger(id string) string {
	for i := 0; ; i++ {
		if s := fmt.Sprint("x", i); partitionOf(s) != partitionOf(id) {
			return s
		}
	}
}

func TestStartBehindWhatWasDeleted(t *testing.T) {
	w := newWorld(t)
	w.report(w.at("a", 1, 1))
	w.report(w.at(sibling("a"), 2, 2))
	w.store.Truncate(topics.Tracks, partitionOf("a"), 1)
	s := w.startReady()
	_, err := get(s, "a")
	require.Equal(t, codes.NotFound, status.Code(err))
	_, err = get(s, sibling("a"))
	require.NoError(t, err)
}

func TestRebuildWindowBoundsTheStart(t *testing.T) {
	w := newWorld(t)
	// One vehicle long ago, then enough ticks over 100,000 s that the start is
	// looked for.
	w.report(w.at("a", 1, 1))
	p := partitionOf("a")
	const ticks = 50_000
	for range ticks {
		w.pass(2 * time.Second)
		w.tick(p)
	}
	w.report(w.at(sibling("a"), 2, 2))
	s := w.startReady(func(c *matcher.Config) { c.RebuildWindow = 10 * time.Minute })
	_, err := get(s, "a")
	require.Equal(t, codes.NotFound, status.Code(err))
	_, err = get(s, sibling("a"))
	require.NoError(t, err)
	read := s.metric("records_total")
	require.Less(t, read, 30_000.0)
	require.Greater(t, read, 300.0)

	all := w.startReady(func(c *matcher.Config) { c.RebuildWindow = 0 })
	require.EqualValues(t, ticks+2, all.metric("records_total"))
}

func TestNewEpochForgetsThePartition(t *testing.T) {
	w := newWorld(t)
	id, other := "a", sibling("a")
	p := partitionOf(id)
	w.report(w.at(id, 1, 1))
	w.report(w.at(stranger(id), 1, 1))
	s := w.startReady()
	w.epoch++
	t2 := &wire.Track{Epoch: w.epoch, SourceOffset: 0, PreviousSourceOffset: -1, ClockMS: startMS, HasLive: true, Live: w.at(other, 2, 2)}
	w.append(p, t2)
	s.seen(other, startMS)
	_, err := get(s, id)
	require.Equal(t, codes.NotFound, status.Code(err))
	_, err = get(s, stranger(id))
	require.NoError(t, err, "another partition's vehicle")
	// A tracker of the old epoch that has not noticed yet.
	w.append(p, &wire.Track{Epoch: w.epoch - 1, SourceOffset: 1, PreviousSourceOffset: 0, ClockMS: startMS, HasLive: true, Live: w.at(id, 1, 1)})
	s.eventually(func() bool { return s.metric("outdated_total") == 1 })
	_, err = get(s, id)
	require.Equal(t, codes.NotFound, status.Code(err))
}

func TestRecordsOfAnOlderEpochDoNotCount(t *testing.T) {
	w := newWorld(t)
	w.report(w.at("a", 1, 1))
	w.store.SetEpoch(w.epoch + 1)
	s := w.startReady()
	_, err := get(s, "a")
	require.Equal(t, codes.NotFound, status.Code(err))
}

func TestDues(t *testing.T) {
	w := newWorld(t)
	id, other := "a", sibling("a")
	p := partitionOf(id)
	w.report(w.at(id, 1, 1))
	s := w.startReady()
	due := w.next(p)
	due.Fired = []wire.Fired{{VehicleID: other, HasLive: true, Live: w.at(other, 5, 5)}, {VehicleID: id, Forgotten: true}}
	w.append(p, due)
	s.seen(other, startMS)
	_, err := get(s, id)
	require.Equal(t, codes.NotFound, status.Code(err))
	require.EqualValues(t, 1, s.metric("vehicles"))

	// A vehicle that is forgotten and reports in the same record is known.
	w.pass(time.Second)
	both := w.next(p)
	both.HasLive, both.Live = true, w.at(other, 6, 6)
	both.Fired = []wire.Fired{{VehicleID: other, Forgotten: true}}
	w.append(p, both)
	s.seen(other, startMS+1000)
}

func TestViewsThatBreakARule(t *testing.T) {
	w := newWorld(t)
	w.report(w.at("a", 1, 1))
	s := w.startReady()
	w.report(w.at("a", 91, 1))
	s.eventually(func() bool { return s.metric("invalid_views_total") == 1 })
	alarmtest.Raised(t, s.registry, "starling_matcher_invalid_views_total")
	v, err := get(s, "a")
	require.NoError(t, err)
	require.Equal(t, 1.0, v.Position.Latitude)
}

func TestRecordsThatCannotBeDecoded(t *testing.T) {
	w := newWorld(t)
	s := w.startReady()
	require.NoError(t, w.log.Append(ctx, topics.Tracks, 2, eventlog.Record{Value: []byte{0xff}}, doneFunc(func(int64, error) {})))
	require.ErrorContains(t, <-s.failed, "tracks partition 2 offset 0: decode")
	s.failed <- nil
}

func TestConfigValidate(t *testing.T) {
	require.NoError(t, matcher.DefaultConfig().Validate())
	err := matcher.Config{StaleAfter: time.Millisecond, RebuildWindow: time.Second, MaxWatchers: 0}.Validate()
	for _, field := range []string{"stale_after", "rebuild_window", "max_watchers", "max_area_vehicles", "max_playback_fixes", "predict_limit", "eta: osrm_timeout"} {
		require.ErrorContains(t, err, field)
	}
	w := newWorld(t)
	_, err = matcher.New(matcher.Config{}, matcher.Deps{Log: w.log, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	require.ErrorContains(t, err, "stale_after")
}
