package modeltest

import (
	"math/rand/v2"
	"testing/synctest"
	"time"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/tracker"
)

var spec = eventlog.OwnSpec{Group: tracker.DefaultConfig().Group, Source: topics.Locations, State: topics.TrackerState}

// act does one thing that the seed selects.
func (w *world) act() {
	total := 0
	for _, a := range actions {
		total += a.weight
	}
	n := w.rng.IntN(total)
	for _, a := range actions {
		if n -= a.weight; n < 0 {
			if !w.calm || !a.disturbs {
				a.do(w)
			}
			return
		}
	}
}

// actions are what can happen, how often, and whether it disturbs the roles.
var actions = []struct {
	weight   int
	do       func(*world)
	disturbs bool
}{
	{30, (*world).sendOne, false},
	{6, (*world).sendSome, false},
	{4, (*world).sendLater, false},
	{6, (*world).sendCopy, false},
	{3, (*world).holdBack, false},
	{4, (*world).release, false},
	{12, (*world).passTime, false},
	{3, (*world).breakLine, false},
	{2, (*world).loseAnswers, false},
	{2, (*world).newSession, false},
	{2, (*world).manySessions, false},
	{3, (*world).sendRenumbered, false},
	{4, (*world).jumpClock, false},
	{3, (*world).oneWrongFix, false},
	{2, (*world).recordForLater, false},
	{1, (*world).reboot, false},
	{8, (*world).armFault, true},
	{3, (*world).failInABurst, true},
	{3, (*world).killOne, true},
	{2, (*world).stopOne, true},
	{5, (*world).startOne, true},
	{3, (*world).depose, true},
	{2, (*world).skewStamps, false},
	{2, (*world).jumpStamps, false},
	{1, (*world).oneWrongStamp, false},
	{1, (*world).switchVersion, false},
	{1, (*world).poison, false},
	{2, (*world).askMatcher, false},
}

func (w *world) device() (*phone, *device) {
	p := w.phones[w.rng.IntN(len(w.phones))]
	return p, p.vehicles[w.rng.IntN(len(p.vehicles))]
}

func (w *world) sendOne() {
	p, d := w.device()
	p.send(w.draw(d))
}

// sendSome sends reports without waiting for one another.
func (w *world) sendSome() {
	p, _ := w.device()
	for range 2 + w.rng.IntN(6) {
		p.send(w.draw(p.vehicles[w.rng.IntN(len(p.vehicles))]))
	}
}

// sendLater sends reports in another order than they were made.
func (w *world) sendLater() {
	p, d := w.device()
	reports := []*report{w.draw(d), w.draw(d), w.draw(d)}
	w.rng.Shuffle(len(reports), func(i, j int) { reports[i], reports[j] = reports[j], reports[i] })
	for _, r := range reports {
		p.send(r)
	}
}

// sendCopy sends a report again, however old and whether acknowledged or not.
func (w *world) sendCopy() {
	p, d := w.device()
	if n := len(d.sent); n > 0 {
		p.send(d.sent[max(0, n-1-w.rng.IntN(pick(w.rng, 4, n)))])
	}
}

// holdBack makes a report that is sent much later, perhaps when the device has
// another clock.
func (w *world) holdBack() {
	_, d := w.device()
	d.held = append(d.held, w.draw(d))
	if w.rng.IntN(2) == 0 {
		d.jump(w.rng)
	}
}

func (w *world) release() {
	p, d := w.device()
	for _, r := range d.held {
		p.send(r)
	}
	d.held = nil
}

func (w *world) passTime() {
	time.Sleep(pick[time.Duration](w.rng, 10, 200, 500, 1000, 1000, 2000, 4000, 9000, 20_000)*time.Millisecond + time.Duration(w.rng.IntN(1000))*time.Microsecond)
}

func (w *world) breakLine() {
	p, _ := w.device()
	p.disconnect()
}

// loseAnswers leaves a phone on a line on which it receives nothing any more.
func (w *world) loseAnswers() {
	if p, _ := w.device(); p.connected() {
		p.conn.mute.Store(true)
	}
}

func (w *world) newSession() {
	_, d := w.device()
	d.session, d.sequence = w.rng.Uint64()|1, 0
}

// manySessions lets an app start more often than sessions are remembered, and
// then sends something of an old one.
func (w *world) manySessions() {
	p, d := w.device()
	for range 5 {
		d.session, d.sequence = w.rng.Uint64()|1, 0
		p.send(w.draw(d))
	}
	w.sendCopy()
}

// sendRenumbered sends the fixes of an old report as a new one, perhaps in a
// new session.
func (w *world) sendRenumbered() {
	p, d := w.device()
	n := len(d.sent)
	if n == 0 {
		return
	}
	old := d.sent[max(0, n-1-w.rng.IntN(6))]
	if w.rng.IntN(3) == 0 {
		d.session, d.sequence = w.rng.Uint64()|1, 0
	}
	d.sequence++
	r := &report{Report: old.Report}
	r.SessionID, r.Sequence = d.session, d.sequence
	d.sent = append(d.sent, r)
	w.tally.reports++
	p.send(r)
}

func (w *world) jumpClock() {
	_, d := w.device()
	d.jump(w.rng)
}

func (d *device) jump(rng *rand.Rand) {
	d.skew = pick(rng, 0, 0, 2*time.Second, 7*time.Second, 15*time.Second, -7*time.Second, -15*time.Second, time.Hour, -time.Hour)
}

// oneWrongFix sends one report by a clock that is right again at once.
func (w *world) oneWrongFix() {
	p, d := w.device()
	before := d.skew
	d.skew += pick(w.rng, 2*time.Second, 9*time.Second, time.Minute, -9*time.Second)
	r := w.draw(d)
	d.skew = before
	p.send(r)
}

// recordForLater lets a device send at the pace at which it recorded, some time
// ago, or send what is new again.
func (w *world) recordForLater() {
	_, d := w.device()
	d.lag = pick(w.rng, 0, 0, 4*time.Second, 40*time.Second, time.Hour)
}

// reboot makes a device lose its queue, and with it its session.
func (w *world) reboot() {
	p, _ := w.device()
	p.disconnect()
	w.mu.Lock()
	for _, r := range p.queue {
		r.dropped = true
	}
	p.queue = nil
	w.mu.Unlock()
	for _, d := range p.vehicles {
		d.session, d.sequence, d.sent, d.held = w.rng.Uint64()|1, 0, nil, nil
	}
}

const longestHang = 12 * time.Second

// armFault lets the next step of the log that comes to some point fail, die or
// hang.
func (w *world) armFault() {
	w.faults.arm(
		point{pick(w.rng, topics.Locations, topics.Tracks, topics.Tracks, topics.DeadLetters, checkpoint, checkpoint, load), int32(w.rng.IntN(partitions)), w.rng.IntN(2) == 0},
		fault{effect: pick(w.rng, fails, kills, hangs), lasts: pick(w.rng, 100*time.Millisecond, 3*time.Second, longestHang), behind: w.rng.IntN(2) == 0},
	)
}

// failInABurst lets a track fail while others are queued behind it.
func (w *world) failInABurst() {
	w.faults.arm(point{topics.Tracks, int32(w.rng.IntN(partitions)), w.rng.IntN(3) == 0}, fault{effect: fails, behind: w.rng.IntN(3) == 0})
	w.sendSome()
}

func (w *world) anyNode() *node {
	up := w.up(func(*node) bool { return true })
	if len(up) == 0 {
		return nil
	}
	return up[w.rng.IntN(len(up))]
}

func (w *world) killOne() {
	if n := w.anyNode(); n != nil {
		w.tally.kills++
		n.kill()
	}
}

func (w *world) stopOne() {
	if n := w.anyNode(); n != nil {
		n.stop()
	}
}

// startOne starts what is missing, or one tracker or ingest more.
func (w *world) startOne() {
	w.ensureUp()
	if len(w.nodes) < 5 {
		skew := pick(w.rng, 0, 0, time.Hour, -time.Minute)
		n := w.start(pick(w.rng, roles{ingest: true}, roles{tracker: true}, roles{tracker: true}, roles{ingest: true, tracker: true}), skew)
		n.revokeDelay.Store(int64(pick(w.rng, 0, 2*time.Second, 10*time.Second)))
	}
}

// depose takes all partitions from their owners, who may go on for a while.
func (w *world) depose() { w.store.Depose(spec) }

func (w *world) skewStamps() {
	w.stampSkew.Store(int64(pick(w.rng, 0, 0, 300*time.Millisecond, -300*time.Millisecond, 5*time.Second, -20*time.Second, 40*time.Second)))
}

// jumpStamps sets the log's clock far off and lets the phones go on, for
// seconds or until it is believed; half the time it comes back.
func (w *world) jumpStamps() {
	before := w.stampSkew.Load()
	w.stampSkew.Store(int64(pick(w.rng, 8*24*time.Hour, -8*24*time.Hour, 3*time.Hour, -3*time.Hour, time.Minute)))
	for range 1 + w.rng.IntN(9) {
		w.sendOne()
		time.Sleep(pick(w.rng, 200*time.Millisecond, time.Second))
	}
	if w.rng.IntN(2) == 0 {
		w.stampSkew.Store(before)
	}
}

// oneWrongStamp stamps what is sent in one moment by a clock that is far off.
func (w *world) oneWrongStamp() {
	before := w.stampSkew.Swap(int64(pick(w.rng, 8*24*time.Hour, -8*24*time.Hour, 3*time.Hour, -3*time.Hour)))
	w.sendOne()
	synctest.Wait()
	w.stampSkew.Store(before)
}

func (w *world) switchVersion() {
	l := drawSwitch(w.rng, w.cfg.tracker.StepSettings(partitions))
	w.tally.switches++
	for p := range int32(partitions) {
		w.inject(p, eventlog.Record{Value: l.Append(nil)})
	}
}

func (w *world) poison() {
	w.tally.poison++
	w.inject(int32(w.rng.IntN(partitions)), w.drawPoison())
}
