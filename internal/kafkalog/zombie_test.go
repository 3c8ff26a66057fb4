package kafkalog_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/kafkalog"
	"github.com/starling-fleet/starling/internal/kafkatest"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker"
	"github.com/starling-fleet/starling/tracker/step"
)

// Where the zombie falls asleep.
const (
	beforePublish    = "before a publish"
	beforeCheckpoint = "between publish and checkpoint"
	beforeLoad       = "before loading"
	whileLoading     = "while loading"
)

// zombieConfig passes a zombieSpec to a child process.
const zombieConfig = "KAFKALOG_ZOMBIE"

type zombieSpec struct {
	Log   kafkalog.Config
	Place string
}

// What the child prints, a line each.
const (
	saysAsleep  = "asleep on partition"
	saysRefused = "refused:"
	saysStored  = "STORED"
)

// zombieKey is a key of the state that only a zombie's checkpoint would store.
const zombieKey = "the zombie was here"

// zombieTracker is the configuration of both trackers: one that checkpoints
// often.
func zombieTracker() tracker.Config {
	cfg := tracker.DefaultConfig()
	cfg.CheckpointInterval = 500 * time.Millisecond
	return cfg
}

// runZombie runs a tracker whose process stops itself with SIGSTOP at one place
// and tries to store a checkpoint as soon as it goes on.
func runZombie() {
	var spec zombieSpec
	if err := json.Unmarshal([]byte(os.Getenv(zombieConfig)), &spec); err != nil {
		panic(err)
	}
	log, err := openUntested(spec.Log)
	if err != nil {
		panic(err)
	}
	t, err := tracker.New(zombieTracker(), tracker.Deps{Log: &sleepyLog{Log: log, place: spec.Place}, Registerer: prometheus.NewRegistry(), Logger: testLogger()})
	if err != nil {
		panic(err)
	}
	panic(t.Run(context.Background()))
}

// sleepyLog stops the process once, at a place.
type sleepyLog struct {
	eventlog.Log
	place  string
	tracks atomic.Int64 // appended
	slept  atomic.Bool
	claims [64]atomic.Pointer[sleepyClaim] // by partition
}

func (l *sleepyLog) Own(ctx context.Context, spec eventlog.OwnSpec, serve eventlog.Serve) error {
	return l.Log.Own(ctx, spec, func(ctx context.Context, c eventlog.Claim) error {
		sleepy := &sleepyClaim{Claim: c, log: l}
		l.claims[c.Partition()].Store(sleepy)
		return serve(ctx, sleepy)
	})
}

func (l *sleepyLog) Append(ctx context.Context, topic string, p int32, rec eventlog.Record, done eventlog.Completion) error {
	// Behind some that are stored and checkpointed, and some that are not.
	if topic == topics.Tracks && l.tracks.Add(1) > 50 {
		l.sleepAt(beforePublish, l.claims[p].Load())
	}
	return l.Log.Append(ctx, topic, p, rec, done)
}

type sleepyClaim struct {
	eventlog.Claim
	log *sleepyLog
}

func (c *sleepyClaim) Load(ctx context.Context, fn func(key, value []byte) error) (int64, error) {
	c.log.sleepAt(beforeLoad, c)
	keys, slept := 0, false
	resume, err := c.Claim.Load(ctx, func(key, value []byte) error {
		if keys++; keys == 2 {
			slept = c.log.sleepAt(whileLoading, c)
		}
		return fn(key, value)
	})
	if slept {
		tryAsZombie(c)
	}
	return resume, err
}

func (c *sleepyClaim) Checkpoint(ctx context.Context, changes []eventlog.Record, resume int64) error {
	if resume > 20 {
		c.log.sleepAt(beforeCheckpoint, c)
	}
	return c.Claim.Checkpoint(ctx, changes, resume)
}

// sleepAt stops the process here, if this is the place, and afterwards does at
// once what a zombie must not be able to do. Only while it loads the claim is in
// use, and the caller does it later.
func (l *sleepyLog) sleepAt(place string, c *sleepyClaim) (slept bool) {
	if place != l.place || l.slept.Swap(true) {
		return false
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fmt.Println(saysAsleep, c.Partition())
	// To this very thread: it takes the signal before it does anything else, and
	// the whole process stops.
	if _, _, errno := syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(os.Getpid()), uintptr(syscall.Gettid()), uintptr(syscall.SIGSTOP)); errno != 0 {
		panic(errno)
	}
	switch place {
	case whileLoading:
		return true
	case beforeLoad:
		_, err := c.Claim.Load(context.Background(), func(_, _ []byte) error { return nil })
		fmt.Println("loaded:", err)
	}
	tryAsZombie(c)
	return true
}

func tryAsZombie(c *sleepyClaim) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := c.Claim.Checkpoint(ctx, []eventlog.Record{{Key: []byte(zombieKey), Value: []byte("x")}}, 1<<40)
	if err == nil {
		fmt.Println(saysStored)
		return
	}
	fmt.Println(saysRefused, err)
}

// TestAZombieChangesNothing: a tracker's process stops at the worst moments for
// longer than its session, another takes its partitions over, and then it goes
// on. Its checkpoint is refused, and what a reader of tracks sees is what one
// tracker makes of the same records.
func TestAZombieChangesNothing(t *testing.T) {
	for _, place := range []string{beforePublish, beforeCheckpoint, beforeLoad, whileLoading} {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(kafkatest.Shared(t).Brokers())
			cfg.SessionTimeout = 2 * time.Second
			w := &zombieWorld{t: t, log: openLog(t, cfg), began: time.Now().Add(-10 * time.Minute), readers: map[int32]*follower{}}
			w.send(100)
			if place == whileLoading || place == beforeLoad {
				w.track(func() { w.followed() }) // leaves state to load
			}
			z := w.startZombie(zombieSpec{cfg, place})
			z.await(saysAsleep)
			w.track(func() {
				w.send(100)
				w.followed() // so the zombie's partitions are another's
				z.signal(syscall.SIGCONT)
				z.await(saysRefused)
				w.send(100)
				w.followed()
				z.kill()
			})
			w.judge()
		})
	}
}

// zombieWorld is a log with the fleet's reports and a reader of tracks.
type zombieWorld struct {
	t       *testing.T
	log     *kafkalog.Log
	began   time.Time // the devices' first fix
	sent    int64
	readers map[int32]*follower
}

// send appends reports of a few vehicles, each with one fix.
func (w *zombieWorld) send(n int) {
	w.t.Helper()
	var l ledger
	for range n {
		w.sent++
		vehicle := fmt.Sprintf("v%d", w.sent%12)
		value, err := proto.Marshal(&starlingv1.LocationRecord{Event: &starlingv1.LocationRecord_Report{Report: &starlingv1.Report{
			SessionId: 7, Sequence: w.sent,
			Fixes: []*starlingv1.Fix{{DeviceTimeMs: w.began.UnixMilli() + w.sent*1000, Latitude: 52 + float64(w.sent%100)*1e-5, Longitude: 13}},
		}}})
		require.NoError(w.t, err)
		l.wg.Add(1)
		rec := eventlog.Record{Key: []byte(vehicle), Value: value}
		require.NoError(w.t, w.log.Append(w.t.Context(), topics.Locations, eventlog.PartitionOf(rec.Key, w.log.Partitions()), rec, &l))
	}
	l.wg.Wait()
	for _, err := range l.errs {
		require.NoError(w.t, err)
	}
}

// track runs a tracker in this process meanwhile.
func (w *zombieWorld) track(meanwhile func()) {
	w.t.Helper()
	tr, err := tracker.New(zombieTracker(), tracker.Deps{Log: w.log, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- tr.Run(ctx) }()
	defer func() {
		cancel()
		require.NoError(w.t, <-ended)
	}()
	meanwhile()
}

// follower reads one partition of tracks by the readers' rule.
type follower struct {
	reader   eventlog.Reader
	position int64
	values   map[int64][]byte // by source offset
}

// followed waits until the readers have a track for every record that is in
// locations now.
func (w *zombieWorld) followed() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*patience)
	defer cancel()
	bounds, err := w.log.Bounds(ctx, topics.Locations)
	require.NoError(w.t, err)
	for p, b := range bounds {
		f := w.readers[int32(p)]
		if f == nil {
			r, err := w.log.NewReader(ctx, topics.Tracks, map[int32]int64{int32(p): 0})
			require.NoError(w.t, err)
			w.t.Cleanup(func() { require.NoError(w.t, r.Close()) })
			f = &follower{reader: r, position: -1, values: map[int64][]byte{}}
			w.readers[int32(p)] = f
		}
		for f.position < b.End-1 {
			batch, err := f.reader.Poll(ctx)
			require.NoError(w.t, err, "partition %d: the reader is at %d of %d", p, f.position, b.End)
			for _, rec := range batch.Records {
				f.read(w.t, rec)
			}
		}
	}
}

func (f *follower) read(t *testing.T, rec eventlog.Stored) {
	t.Helper()
	var track wire.Track
	require.NoError(t, track.UnmarshalLive(rec.Value))
	switch {
	case track.SourceOffset <= f.position:
		require.True(t, bytes.Equal(f.values[track.SourceOffset], rec.Value), "source offset %d is published again with other content", track.SourceOffset)
	case track.PreviousSourceOffset == f.position:
		f.position = track.SourceOffset
		f.values[track.SourceOffset] = rec.Value
	}
}

// judge compares what the readers saw with what one partition that nobody
// disturbs makes of the same records, and looks for traces in the state.
func (w *zombieWorld) judge() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*patience)
	defer cancel()
	bounds, err := w.log.Bounds(ctx, topics.Locations)
	require.NoError(w.t, err)
	states := make([]*step.Partition, len(bounds))
	for p := range bounds {
		loader, err := step.NewLoader(zombieTracker().StepSettings(len(bounds)), w.log.Epoch())
		require.NoError(w.t, err)
		states[p], err = loader.Partition(-1, step.Bounds(bounds[p]))
		require.NoError(w.t, err)
		f := w.readers[int32(p)]
		for _, rec := range w.locations(ctx, int32(p), f.position) {
			result, err := states[p].Step(step.Record(rec))
			require.NoError(w.t, err)
			require.True(w.t, bytes.Equal(result.Track.Append(nil), f.values[rec.Offset]), "partition %d source offset %d", p, rec.Offset)
		}
	}
	claims, _ := own(w.t, w.log)
	for range bounds {
		h := receive(w.t, claims, "a partition")
		state, resume := mustLoad(w.t, h)
		require.NotContains(w.t, state, zombieKey)
		require.LessOrEqual(w.t, resume, bounds[h.claim.Partition()].End, "no checkpoint stands for what is not in the log")
	}
}

// locations reads the records of a partition up to an offset.
func (w *zombieWorld) locations(ctx context.Context, p int32, last int64) (records []eventlog.Stored) {
	w.t.Helper()
	r, err := w.log.NewReader(ctx, topics.Locations, map[int32]int64{p: 0})
	require.NoError(w.t, err)
	defer r.Close()
	for {
		batch, err := r.Poll(ctx)
		require.NoError(w.t, err)
		for _, rec := range batch.Records {
			if rec.Offset > last {
				return records
			}
			if records = append(records, rec); rec.Offset == last {
				return records
			}
		}
	}
}

// zombie is the child process.
type zombie struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
}

func (w *zombieWorld) startZombie(spec zombieSpec) *zombie {
	w.t.Helper()
	encoded, err := json.Marshal(spec)
	require.NoError(w.t, err)
	z := &zombie{t: w.t, cmd: exec.Command(os.Args[0]), lines: make(chan string, 100)}
	z.cmd.Env = append(os.Environ(), zombieConfig+"="+string(encoded))
	z.cmd.Stderr = os.Stderr
	z.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := z.cmd.StdoutPipe()
	require.NoError(w.t, err)
	require.NoError(w.t, z.cmd.Start())
	go z.listen(out)
	w.t.Cleanup(z.kill)
	return z
}

func (z *zombie) listen(out io.Reader) {
	defer close(z.lines)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		z.lines <- lines.Text()
	}
}

// await waits for a line that begins so.
func (z *zombie) await(prefix string) {
	z.t.Helper()
	for {
		line := receive(z.t, z.lines, "the zombie printing "+prefix)
		require.NotContains(z.t, line, saysStored)
		if strings.HasPrefix(line, prefix) {
			z.t.Log("zombie:", line)
			return
		}
		require.NotEmpty(z.t, line, "the zombie ended")
	}
}

func (z *zombie) signal(s syscall.Signal) {
	z.t.Helper()
	require.NoError(z.t, z.cmd.Process.Signal(s))
}

func (z *zombie) kill() {
	if z.cmd.Process.Kill() == nil {
		_ = z.cmd.Wait() // it was killed
	}
}
