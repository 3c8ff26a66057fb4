package tracker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker"
	"github.com/starling-fleet/starling/tracker/step"
)

// noonMS is where the time of all these tests starts.
const noonMS = 1_767_268_800_000

const second, hour = 1000, 3_600_000

var spec = eventlog.OwnSpec{Group: tracker.DefaultConfig().Group, Source: topics.Locations, State: topics.TrackerState}

// open opens a log that is closed when the test ends.
func open(t *testing.T, store *memlog.Store, opts memlog.Options) *memlog.Log {
	log := memlog.Open(store, opts)
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	return log
}

// running is a tracker that runs until it is stopped.
type running struct {
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error
}

func start(t *testing.T, log tracker.Log) *running {
	t.Helper()
	tr, err := tracker.New(tracker.DefaultConfig(), tracker.Deps{Log: log, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return runTracker(t, tr)
}

func runTracker(t *testing.T, tr *tracker.Tracker) *running {
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{t: t, cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- tr.Run(ctx) }()
	return r
}

// stop ends the tracker in good order.
func (r *running) stop() {
	r.t.Helper()
	r.cancel()
	require.NoError(r.t, <-r.ended)
}

// ignore is a Completion for records whose outcome does not matter.
type ignore struct{}

func (ignore) Done(int64, error) {}

// send appends reports of vehicle v-N to partition 0: fixes of the present
// second.
func send(t *testing.T, log *memlog.Log, vehicle int, sequence int64) {
	t.Helper()
	now := time.Now().UnixMilli() / second * second
	r := wire.Report{SessionID: 1, Sequence: sequence, Fixes: []wire.Fix{
		{DeviceTimeMS: now - second, LatDeg: 30.27, LonDeg: -97.74 + float64(now%hour)*1e-9},
		{DeviceTimeMS: now, LatDeg: 30.27, LonDeg: -97.74 + float64(now%hour)*1e-9},
	}}
	appendTo(t, log, fmt.Sprintf("v-%d", vehicle), wire.Location{Kind: wire.KindReport, Report: r})
}

func appendTo(t *testing.T, log *memlog.Log, key string, l wire.Location) {
	t.Helper()
	require.NoError(t, log.Append(t.Context(), topics.Locations, 0, eventlog.Record{Key: []byte(key), Value: l.Append(nil)}, ignore{}))
}

// requireUndisturbed holds the topics of trackers that have been stopped to the
// contract: for a reader that keeps what advances and drops what repeats,
// `tracks` is what one Partition answers that steps `locations` from its start;
// and repetitions are identical.
func requireUndisturbed(t *testing.T, store *memlog.Store) {
	t.Helper()
	p := newPartitionOfEpoch(t, 0)
	var want []string
	for _, rec := range stepped(t, store) {
		r, err := p.Step(step.Record(rec))
		require.NoError(t, err)
		want = append(want, string(rec.Key)+" "+string(r.Track.Append(nil)))
	}
	seen := map[int64]string{}
	var got []string
	for _, rec := range store.Records(topics.Tracks, 0) {
		var track wire.Track
		require.NoError(t, track.Unmarshal(rec.Value))
		entry := string(rec.Key) + " " + string(rec.Value)
		if first, repeated := seen[track.SourceOffset]; repeated {
			require.Equal(t, first, entry, "source offset %d published twice", track.SourceOffset)
			continue
		}
		seen[track.SourceOffset] = entry
		got = append(got, entry)
	}
	require.Equal(t, len(want), len(got))
	require.Equal(t, want, got)
}

// stepped are the records of `locations` that the trackers have stepped: all,
// but for a tick that was on its way when the last one was stopped.
func stepped(t *testing.T, store *memlog.Store) []eventlog.Stored {
	t.Helper()
	records := store.Records(topics.Locations, 0)
	_, resume := store.State(spec, 0)
	require.GreaterOrEqual(t, resume, int64(len(records)-1))
	return records[:resume]
}

func newPartitionOfEpoch(t *testing.T, epoch int64) *step.Partition {
	p, err := step.NewPartition(tracker.DefaultConfig().StepSettings(1), epoch)
	require.NoError(t, err)
	return p
}

func TestEveryRecordYieldsOneTrack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := open(t, memlog.NewStore(1, topics.All(), 0), memlog.Options{})
		tr := start(t, log)
		for i := range 100 {
			send(t, log, i%7, int64(i/7)+1)
			time.Sleep(300 * time.Millisecond)
		}
		time.Sleep(2*time.Minute + time.Second/2) // of ticks
		tr.stop()
		requireUndisturbed(t, log.Store())
		require.Greater(t, len(log.Store().Records(topics.Locations, 0)), 200, "ticks move the clock on")
		_, resume := log.Store().State(spec, 0)
		require.Equal(t, int64(len(log.Store().Records(topics.Locations, 0))), resume, "the last checkpoint has everything")
	})
}

func TestTicksComeOnceASecondOfSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := open(t, memlog.NewStore(1, topics.All(), 0), memlog.Options{})
		tr := start(t, log)
		synctest.Wait()
		time.Sleep(10*time.Second + 500*time.Millisecond)
		require.Len(t, log.Store().Records(topics.Locations, 0), 10)
		for i := range 50 {
			send(t, log, 1, int64(i)+1)
			time.Sleep(900 * time.Millisecond)
		}
		require.Len(t, log.Store().Records(topics.Locations, 0), 60, "no ticks while records come")
		tr.stop()
	})
}

// A log that does not take a tick is not given another.
func TestOneTickAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan struct{})
		log := open(t, memlog.NewStore(1, topics.All(), 0), memlog.Options{BeforeAppend: func(topic string, _ int32, _ eventlog.Record) error {
			if topic == topics.Locations {
				<-held
			}
			return nil
		}})
		tr := start(t, log)
		time.Sleep(10*time.Second + time.Second/2)
		close(held)
		synctest.Wait()
		require.Len(t, log.Store().Records(topics.Locations, 0), 1)
		time.Sleep(2*time.Second + time.Second/2)
		require.Len(t, log.Store().Records(topics.Locations, 0), 3, "and then they go on")
		tr.stop()
	})
}

// When very many timers expire, ticks follow each other without a pause.
func TestTicksGoOnWhileDuesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := open(t, memlog.NewStore(1, topics.All(), 0), memlog.Options{})
		const vehicles = 1000
		for i := range vehicles {
			send(t, log, i, 1)
		}
		tr := start(t, log)
		time.Sleep(30*time.Second + 999*time.Millisecond)
		closed := map[string]bool{}
		for _, rec := range log.Store().Records(topics.Tracks, 0) {
			var track wire.Track
			require.NoError(t, track.Unmarshal(rec.Value))
			for _, d := range track.Fired {
				require.Len(t, d.FinalPoints, 2)
				closed[d.VehicleID] = true
			}
		}
		require.Len(t, closed, vehicles, "all windows are closed within the second of their timers")
		tr.stop()
		requireUndisturbed(t, log.Store())
	})
}

// The state is stored only when everything that it stands for is in `tracks`.
func TestCheckpointWaitsForTracks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan struct{})
		var hold atomic.Bool
		log := open(t, memlog.NewStore(1, topics.All(), 0), memlog.Options{BeforeAppend: func(topic string, _ int32, _ eventlog.Record) error {
			if topic == topics.Tracks && hold.Load() {
				<-held
			}
			return nil
		}})
		tr := start(t, log)
		for i := range 30 {
			send(t, log, 1, int64(i)+1)
			time.Sleep(time.Second)
		}
		_, before := log.Store().State(spec, 0)
		require.Positive(t, before, "a checkpoint every ten seconds")
		hold.Store(true)
		for i := range 30 {
			send(t, log, 1, int64(i)+31)
			time.Sleep(time.Second)
		}
		_, resume := log.Store().State(spec, 0)
		require.LessOrEqual(t, resume, int64(len(log.Store().Records(topics.Tracks, 0))))
		close(held)
		time.Sleep(11 * time.Second)
		_, resume = log.Store().State(spec, 0)
		require.Greater(t, resume, before+30)
		tr.stop()
		requireUndisturbed(t, log.Store())
	})
}

// What fails, before or after it was stored, makes the tracker go back to its
// last checkpoint and publish the same again.
func TestFailingLogChangesNothing(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			rng := rand.New(rand.NewPCG(seed, 1))
			fail := func(share float64) error {
				mu.Lock()
				defer mu.Unlock()
				if rng.Float64() < share {
					return errors.New("the disk is on fire")
				}
				return nil
			}
			log := open(t, memlog.NewStore(1, topics.All(), 0), memlog.Options{
				BeforeAppend: failOn(topics.Tracks, func() error { return fail(0.01) }),
				AfterAppend: func(topic string, _ int32, _ eventlog.Stored) error {
					return failOn(topics.Tracks, func() error { return fail(0.01) })(topic, 0, eventlog.Record{})
				},
				BeforeCheckpoint: func(eventlog.OwnSpec, int32, []eventlog.Record, int64) error { return fail(0.2) },
				AfterCheckpoint:  func(eventlog.OwnSpec, int32, []eventlog.Record, int64) error { return fail(0.2) },
				MaxBatch:         7,
			})
			tr := start(t, log)
			for i := range 200 {
				send(t, log, i%7, int64(i/7)+1)
				time.Sleep(700 * time.Millisecond)
			}
			time.Sleep(time.Minute)
			tr.stop()
			requireCovered(t, log.Store())
		})
	}
}

func failOn(topic string, fail func() error) func(string, int32, eventlog.Record) error {
	return func(to string, _ int32, _ eventlog.Record) error {
		if to == topic {
			return fail()
		}
		return nil
	}
}

// requireCovered is requireUndisturbed for a log that goes on after it has lost
// a record: what follows the gap on its way is published again after the gap is
// filled, so the order is that of the first complete publication.
func requireCovered(t *testing.T, store *memlog.Store) {
	t.Helper()
	p := newPartitionOfEpoch(t, 0)
	want := map[int64]string{}
	for _, rec := range store.Records(topics.Locations, 0) {
		r, err := p.Step(step.Record(rec))
		require.NoError(t, err)
		want[rec.Offset] = string(r.Track.Append(nil))
	}
	next := int64(0)
	for _, rec := range store.Records(topics.Tracks, 0) {
		var track wire.Track
		require.NoError(t, track.Unmarshal(rec.Value))
		require.Equal(t, want[track.SourceOffset], string(rec.Value))
		if track.PreviousSourceOffset == next-1 {
			next = track.SourceOffset + 1
		}
	}
	_, resume := store.State(spec, 0)
	require.GreaterOrEqual(t, next, resume, "no checkpoint stands for what was not published")
}

// A process that is killed and started again, over and over, leaves the tracks
// and the state of one that was never disturbed.
func TestCrashesChangeNothing(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			store := memlog.NewStore(1, topics.All(), time.Second)
			log := open(t, store, memlog.Options{MaxBatch: 5})
			tr := start(t, log)
			for i := range 300 {
				send(t, log, i%7, int64(i/7)+1)
				time.Sleep(time.Duration(rng.IntN(1000)) * time.Millisecond)
				if rng.IntN(20) == 0 {
					log.Kill()
					require.ErrorIs(t, <-tr.ended, eventlog.ErrClosed)
					log = open(t, store, memlog.Options{MaxBatch: 5})
					tr = start(t, log)
				}
			}
			time.Sleep(2 * time.Minute)
			tr.stop()
			requireUndisturbed(t, store)
			requireStateOfUndisturbed(t, store)
		})
	}
}

// requireStateOfUndisturbed compares the stored state with that of a partition
// that stepped the whole log and was checkpointed once.
func requireStateOfUndisturbed(t *testing.T, store *memlog.Store) {
	t.Helper()
	p := newPartitionOfEpoch(t, 0)
	for _, rec := range stepped(t, store) {
		_, err := p.Step(step.Record(rec))
		require.NoError(t, err)
	}
	want := map[string][]byte{}
	c := p.Snapshot(nil, nil)
	for _, change := range c.Changes {
		if change.Value != nil {
			want[string(change.Key)] = change.Value
		}
	}
	got, resume := store.State(spec, 0)
	require.Equal(t, c.Resume, resume)
	require.Equal(t, want, got)
}

func TestHandOverLeavesNothingToReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memlog.NewStore(1, topics.All(), 10*time.Second)
		log := open(t, store, memlog.Options{})
		first := start(t, log)
		for i := range 25 {
			send(t, log, i%3, int64(i/3)+1)
			time.Sleep(100 * time.Millisecond)
		}
		second := start(t, open(t, store, memlog.Options{}))
		first.stop()
		for i := range 25 {
			send(t, log, i%3, int64(i/3)+100)
			time.Sleep(100 * time.Millisecond)
		}
		second.stop()
		require.Len(t, store.Records(topics.Tracks, 0), len(store.Records(topics.Locations, 0)), "nothing was published twice")
		requireUndisturbed(t, store)
	})
}

// A process that dies more often than it checkpoints must not replay more and
// more: what was replayed is checkpointed at once.
func TestAReplayIsCheckpointedAtItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memlog.NewStore(1, topics.All(), 10*time.Second)
		const brief = 100 * time.Millisecond // no checkpoint is due before it ends
		var sent int64
		for range 3 {
			log := memlog.Open(store, memlog.Options{})
			tr := start(t, log)
			time.Sleep(brief)
			_, resume := store.State(spec, 0)
			require.Equal(t, sent, max(resume, 0), "what the crash before has left is replayed and checkpointed")
			for range 10 {
				sent++
				send(t, log, 1, sent)
			}
			time.Sleep(brief)
			require.Len(t, store.Records(topics.Tracks, 0), int(2*sent-10), "all is published, and of what was published before only the last stretch again")
			log.Kill()
			tr.cancel()
			<-tr.ended
		}
	})
}

// An owner that was taken for dead finds its checkpoints refused, and what it
// still publishes is what its successor publishes.
func TestZombieDoesNoHarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memlog.NewStore(1, topics.All(), time.Second)
		log := open(t, store, memlog.Options{})
		tr := start(t, log)
		for i := range 200 {
			send(t, log, i%3, int64(i/3)+1)
			time.Sleep(400 * time.Millisecond)
			if i%20 == 10 {
				store.Depose(spec)
			}
		}
		tr.stop()
		requireUndisturbed(t, store)
		requireStateOfUndisturbed(t, store)
	})
}

func TestPoisonGoesToTheDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := open(t, memlog.NewStore(1, topics.All(), 0), memlog.Options{})
		tr := start(t, log)
		send(t, log, 1, 1)
		require.NoError(t, log.Append(t.Context(), topics.Locations, 0, eventlog.Record{Key: []byte("v-1"), Value: []byte("\xffgarbage")}, ignore{}))
		send(t, log, 1, 2)
		time.Sleep(100 * time.Millisecond)
		tr.stop()
		requireUndisturbed(t, log.Store())
		deadLetters := log.Store().Records(topics.DeadLetters, 0)
		require.Len(t, deadLetters, 1)
		require.Equal(t, "locations/0/1", string(deadLetters[0].Key))
		d, err := tracker.DecodeDeadLetter(deadLetters[0].Value)
		require.NoError(t, err)
		require.Equal(t, "v-1", string(d.Key))
		require.Equal(t, "\xffgarbage", string(d.Value))
		require.Equal(t, int64(1), d.Offset)
		require.ErrorContains(t, errors.New(d.Error), "LocationRecord")
		require.Equal(t, log.Store().Records(topics.Locations, 0)[1].AppendTimeMS, d.AppendTimeMS)
	})
}

func TestUnknownVersionGivesThePartitionBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := open(t, memlog.NewStore(1, topics.All(), 0), memlog.Options{})
		tr := start(t, log)
		send(t, log, 1, 1)
		settings := tracker.DefaultConfig().StepSettings(1)
		settings.WindowMS = 10 * second
		appendTo(t, log, "", wire.Location{Kind: wire.KindVersionSwitch, Switch: wire.VersionSwitch{StepVersion: step.Newest, Settings: settings.Encode()}})
		send(t, log, 1, 2)
		appendTo(t, log, "", wire.Location{Kind: wire.KindVersionSwitch, Switch: wire.VersionSwitch{StepVersion: step.Newest + 1}})
		send(t, log, 1, 3)
		err := <-tr.ended
		var unknown *step.UnknownVersionError
		require.ErrorAs(t, err, &unknown)
		require.Equal(t, int64(3), unknown.Offset)
		require.ErrorContains(t, err, "partition 0")
		require.Len(t, log.Store().Records(topics.Tracks, 0), 3)
		_, resume := log.Store().State(spec, 0)
		require.Equal(t, int64(3), resume, "a newer binary goes on at the switch")
	})
}

func TestStateThatCannotBeReadIsRefused(t *testing.T) {
	p := newPartitionOfEpoch(t, 1)
	_, err := p.Step(step.Record{AppendTimeMS: noonMS, Value: (&wire.Location{Kind: wire.KindTick}).Append(nil)})
	require.NoError(t, err)
	header := p.Snapshot(nil, nil).Changes[0]

	for name, test := range map[string]struct {
		epoch      int64
		key, value []byte
		want       string
	}{
		"another version":              {1, header.Key, append([]byte{99}, header.Value[1:]...), "version 99"},
		"another version of a vehicle": {1, []byte("v"), []byte{99}, `state of "v" has version 99`},
		"a later epoch":                {0, header.Key, header.Value, "epoch 1, the log's is 0"},
		"damage":                       {1, header.Key, header.Value[:len(header.Value)-1], "larger than what follows"},
		"nothing":                      {1, []byte("v"), nil, "is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			loader, err := step.NewLoader(tracker.DefaultConfig().StepSettings(1), test.epoch)
			require.NoError(t, err)
			require.ErrorContains(t, loader.Add(test.key, test.value), test.want)
		})
	}
	loader, err := step.NewLoader(tracker.DefaultConfig().StepSettings(1), 1)
	require.NoError(t, err)
	require.NoError(t, loader.Add(header.Key, header.Value))
	_, err = loader.Partition(7, step.Bounds{End: 7})
	require.ErrorContains(t, err, "resumes at offset 7, the state stands for the records before 1")
	_, err = loader.Partition(1, step.Bounds{})
	require.ErrorContains(t, err, "resumes at offset 1, the log ends at 0")
}

func TestConfigNamesEveryFault(t *testing.T) {
	cfg := tracker.DefaultConfig()
	require.NoError(t, cfg.Validate())
	cfg.Window, cfg.WindowMaxFixes, cfg.H3Resolution, cfg.Group, cfg.TickInterval = -time.Second, 0, 16, "", 0
	cfg.Filter.MaxSpeedMPS = -1
	err := cfg.Validate()
	for _, field := range []string{"window is -1s: must be between 0s and 1h", "window_max_fixes", "h3_resolution", "group", "tick_interval", "max_speed_mps"} {
		require.ErrorContains(t, err, field)
	}
	require.Len(t, strings.Split(err.Error(), "\n"), 6)
	_, err = tracker.New(cfg, tracker.Deps{Log: memlog.New(1, memlog.Options{}), Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	require.ErrorContains(t, err, "tracker configuration")
}
