package modeltest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/ingest"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker"
)

const partitions = 2

// handover is how long a holder may take to hand over.
const handover = 4 * time.Second

// world is everything that one seed decides: processes, phones, faults and the
// log that outlives them.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	cfg   config
	store *memlog.Store
	// calm leaves out what disturbs the roles.
	calm bool
	// ingestSkew is what the first ingest's wall clock is off by.
	ingestSkew time.Duration
	// writer appends what no role writes: switches and poison.
	writer    *memlog.Log
	stampSkew atomic.Int64
	faults    *faults
	nodes     []*node
	started   int
	phones    []*phone
	devices   []*device

	mu sync.Mutex
	// expected and stored count the records of reports: sent as such, and
	// taken by the log.
	expected, stored map[string]int
	injected         map[string]int // switches and poison
	failure          string
	tally            tally
}

// config is what the roles are set to.
type config struct {
	ingest  ingest.Config
	tracker tracker.Config
}

// tally counts what a run has done, so that a test that does nothing shows.
type tally struct {
	reports, acked, kills, poison, switches, published, stepped, forgotten int
}

// newWorld returns a world that a seed decides, with a few devices.
func newWorld(t *testing.T, seed uint64) *world {
	rng := rand.New(rand.NewPCG(seed, 0))
	w := emptyWorld(t, rng, drawConfig(rng))
	for i := range 2 + w.rng.IntN(5) {
		w.devices = append(w.devices, &device{
			id: fmt.Sprintf("v-%d", i), session: w.rng.Uint64() | 1, lat: 30 + float64(i), lon: 179.9999,
		})
	}
	for i := range 3 {
		var vehicles []*device
		for k, d := range w.devices {
			if k%3 == i {
				vehicles = append(vehicles, d)
			}
		}
		if len(vehicles) > 0 {
			w.phones = append(w.phones, &phone{world: w, vehicles: vehicles, unary: w.rng.IntN(4) == 0})
		}
	}
	if w.rng.IntN(2) == 0 { // a second phone for one of the vehicles
		d := w.devices[w.rng.IntN(len(w.devices))]
		p := w.phones[w.rng.IntN(len(w.phones))]
		p.vehicles = append(p.vehicles, &device{id: d.id, session: w.rng.Uint64() | 1, lat: d.lat, lon: d.lon})
	}
	return w
}

// emptyWorld returns a world with a log and nothing else.
func emptyWorld(t *testing.T, rng *rand.Rand, cfg config) *world {
	w := &world{
		t: t, rng: rng, cfg: cfg, faults: newFaults(),
		expected: map[string]int{}, stored: map[string]int{}, injected: map[string]int{},
		store: memlog.NewStore(partitions, topics.All(), handover),
	}
	w.writer = memlog.Open(w.store, memlog.Options{Now: func() time.Time { return time.Now().Add(time.Duration(w.stampSkew.Load())) }, MayStepBack: true})
	return w
}

// drawConfig sets the roles so that a minute has a day's events in it.
func drawConfig(rng *rand.Rand) config {
	c := config{ingest: ingest.DefaultConfig(), tracker: tracker.DefaultConfig()}
	if rng.IntN(3) > 0 {
		c.ingest.Validation.MaxAhead = 2 * time.Hour // so that clocks that are wrong reach the tracker
	}
	t := &c.tracker
	t.Window = pick(rng, 0, 2*time.Second, 5*time.Second, 5*time.Second)
	t.WindowMaxFixes = pick(rng, 1, 3, 1024, 1024)
	t.RepeatInterval = pick(rng, 3*time.Second, 11*time.Second)
	t.RepeatMaxInterval = t.RepeatInterval * time.Duration(pick(rng, 1, 3, 8))
	t.ForgetAfter = pick(rng, 17*time.Second, time.Minute)
	t.ForgetSingleAfter = pick(rng, 9*time.Second, time.Minute)
	t.MaxAhead, t.RebaseAfter = 10*time.Second, 5*time.Second
	t.ClockJump = pick(rng, 2*time.Second, 7*time.Second, 15*time.Second)
	t.ClockSettle = pick(rng, 1500*time.Millisecond, 4*time.Second)
	t.RememberFixes = pick(rng, 3, 64, 64)
	t.SessionSilence = pick(rng, 2*time.Second, 5*time.Second, 11*time.Second)
	t.AheadTolerance = pick(rng, 500*time.Millisecond, time.Second, 3*time.Second)
	t.ClockMemory = pick(rng, 3*time.Second, 20*time.Second)
	t.DispatchMaxAge = pick(rng, 2*time.Second, 7*time.Second)
	t.TickInterval = 2700 * time.Millisecond
	t.CheckpointInterval = pick(rng, 900*time.Millisecond, 3100*time.Millisecond, 9100*time.Millisecond)
	t.MaxInFlightBytes = pick(rng, 1<<10, 1<<20)
	t.RetryInterval = 300 * time.Millisecond
	return c
}

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }

func (w *world) maxBatch() int { return pick(w.rng, 1, 2, 5, 1000) }

func (w *world) noError(err error) {
	if err != nil {
		w.t.Helper()
		w.t.Fatal(err)
	}
}

// fail takes note of the first thing that is wrong.
func (w *world) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failLocked(format, args...)
}

func (w *world) failLocked(format string, args ...any) {
	if w.failure == "" {
		w.failure = fmt.Sprintf(format, args...)
	}
}

func (w *world) failed() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failure
}

// note counts a record that the log has just taken.
func (w *world) note(topic string, partition int32, rec eventlog.Stored) {
	if topic == topics.Locations && len(rec.Key) > 0 {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.stored[storedKey(partition, rec.Key, rec.Value)]++
	}
}

// up returns the living processes that are fit.
func (w *world) up(fit func(*node) bool) []*node {
	var up []*node
	for _, n := range w.nodes {
		if !n.isDead() && !n.ended.Load() && fit(n) {
			up = append(up, n)
		}
	}
	return up
}

func (w *world) forget(n *node) {
	w.nodes = slices.DeleteFunc(w.nodes, func(other *node) bool { return other == n })
}

// reap waits for the processes that a fault has killed or that ended.
func (w *world) reap() {
	for _, n := range slices.Clone(w.nodes) {
		if n.isDead() || n.ended.Load() {
			n.kill()
		}
	}
}

// allowed holds a status to what the protocol lets a client expect. w.mu is held.
func (w *world) allowed(err error) {
	switch code := status.Code(err); code {
	case codes.Unavailable, codes.ResourceExhausted, codes.Canceled:
	default:
		w.failLocked("a stream or call ended with %v", err)
	}
}

func (w *world) streamEnded(c *conn, err error) {
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		c.phone.ended(err)
	}
}

// ended takes note of how a stream or call of the phone ended. w.mu is held.
func (p *phone) ended(err error) {
	p.world.allowed(err)
	p.keptBack = slices.ContainsFunc(status.Convert(err).Details(), func(detail any) bool {
		info, ok := detail.(*errdetails.ErrorInfo)
		return ok && info.Reason == "CLOCK_IN_DOUBT"
	})
}

// inject appends a record that no role writes.
func (w *world) inject(partition int32, rec eventlog.Record) {
	w.mu.Lock()
	w.injected[storedKey(partition, rec.Key, rec.Value)]++
	w.mu.Unlock()
	w.noError(w.writer.Append(w.t.Context(), topics.Locations, partition, rec, ignore{}))
}

// ignore is a Completion for records whose outcome does not matter.
type ignore struct{}

func (ignore) Done(int64, error) {}

// run lives through one seed.
func (w *world) run(actions int) {
	w.begin()
	for range actions {
		w.act()
		synctest.Wait()
		w.reap()
		if w.failed() != "" {
			break
		}
	}
	w.settle()
}

// begin starts the first processes: one with every role, or one of each.
func (w *world) begin() {
	if w.rng.IntN(3) == 0 {
		w.start(roles{true, true, true}, w.ingestSkew)
		return
	}
	w.start(roles{ingest: true}, w.ingestSkew)
	w.start(roles{tracker: true}, 0)
	w.start(roles{matcher: true}, 0)
}

// settle heals everything, lets the phones send all that they have to send and
// the trackers catch up and close what is open, and stops all in good order.
func (w *world) settle() {
	w.faults.disarm()
	w.stampSkew.Store(0)
	time.Sleep(longestHang + handover) // what hangs goes on
	synctest.Wait()
	w.reap()
	for _, n := range w.up(func(*node) bool { return true }) {
		n.revokeDelay.Store(0)
	}
	w.ensureUp()
	// An ingest whose clock was in doubt keeps reports back until the log's
	// stamps agree with it again.
	for round := 0; round < 3 || round < 30 && w.awaited(); round++ {
		for _, p := range w.phones {
			p.disconnect()
			p.connect()
			synctest.Wait()
		}
		time.Sleep(time.Second)
	}
	time.Sleep(pick(w.rng, 0, 0, 20*time.Second, 61*time.Second))
	w.stopTrackers()
	synctest.Wait()
}

// awaited reports whether a phone still has reports that were not acknowledged.
func (w *world) awaited() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.phones, func(p *phone) bool { return len(p.queue) > 0 })
}

// ensureUp starts what is missing.
func (w *world) ensureUp() {
	has := func(fit func(*node) bool) bool { return len(w.up(fit)) > 0 }
	missing := roles{
		ingest:  !has(func(n *node) bool { return n.ingest != nil }),
		tracker: !has(func(n *node) bool { return n.hasTracker }),
		matcher: !has(func(n *node) bool { return n.matcher != nil }),
	}
	if missing != (roles{}) {
		w.start(missing, 0)
	}
}

// stopTrackers stops every tracker, and starts a matcher if none is left.
func (w *world) stopTrackers() {
	for _, n := range w.up(func(n *node) bool { return n.hasTracker }) {
		n.stop()
	}
	if len(w.up(func(n *node) bool { return n.matcher != nil })) == 0 {
		w.start(roles{matcher: true}, 0)
	}
}

// close ends what is left of the world.
func (w *world) close() {
	w.faults.disarm()
	for _, p := range w.phones {
		p.disconnect()
	}
	for _, n := range slices.Clone(w.nodes) {
		n.stop()
	}
	w.noError(w.writer.Close())
}

// report draws a vehicle's next report.
func (w *world) draw(d *device) *report {
	d.sequence++
	if w.rng.IntN(30) == 0 {
		d.sequence += int64(w.rng.IntN(70)) // a gap
	}
	r := &report{Report: wire.Report{VehicleID: d.id, SessionID: d.session, Sequence: d.sequence}}
	for range w.rng.IntN(4) {
		r.Fixes = append(r.Fixes, w.drawFix(d))
	}
	w.drawState(r)
	if len(r.Fixes) == 0 && r.Availability == 0 && !r.HasAttributes {
		r.Fixes = append(r.Fixes, w.drawFix(d))
	}
	d.sent = append(d.sent, r)
	w.tally.reports++
	return r
}
