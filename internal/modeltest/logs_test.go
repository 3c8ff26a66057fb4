package modeltest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/modeltest/slow"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	trackerstep "github.com/starling-fleet/starling/tracker/step"
)

// drawnLog is a partition of `locations` as a seed draws it, without the roles:
// phones of a few vehicles, some of which have two, their clocks, and the
// clock that stamps the records.
type drawnLog struct {
	rng      *rand.Rand
	settings trackerstep.Settings
	records  []eventlog.Stored
	// trueMS is the time; stampSkewMS is what the log's clock is off by.
	trueMS, stampSkewMS int64
	phones              []*drawnPhone
}

// drawnPhone is a phone that reports for a vehicle.
type drawnPhone struct {
	vehicle  string
	session  uint64
	sequence int64
	// skewMS is what its clock is off by, and lagMS how old the fixes are that
	// it sends at the pace at which it recorded them.
	skewMS, lagMS int64
	silent        bool
	latDeg        float64
	sent          []wire.Report // all there were, of all sessions
}

func drawLog(seed uint64, records int) *drawnLog {
	rng := rand.New(rand.NewPCG(seed, 7))
	d := &drawnLog{rng: rng, settings: drawConfig(rng).tracker.StepSettings(partitions), trueMS: 1_767_268_800_000}
	d.settings.MaxVehicles = pick(rng, 1, 2, 50, 50, 50)
	for v := range 1 + rng.IntN(3) {
		for range pick(rng, 1, 1, 2, 3) {
			d.phones = append(d.phones, &drawnPhone{vehicle: fmt.Sprint("v-", v), session: rng.Uint64() | 1, latDeg: 30 + float64(v)})
		}
	}
	total := 0
	for _, a := range logActs {
		total += a.weight
	}
	for len(d.records) < records {
		n := rng.IntN(total)
		for _, a := range logActs {
			if n -= a.weight; n < 0 {
				a.do(d, d.phones[rng.IntN(len(d.phones))])
				break
			}
		}
	}
	return d
}

// logActs are what can happen, and how often.
var logActs = []struct {
	weight int
	do     func(*drawnLog, *drawnPhone)
}{
	{60, func(d *drawnLog, p *drawnPhone) { d.send(p, d.draw(p)) }},
	{10, (*drawnLog).drive},
	{8, (*drawnLog).copySent},
	{5, (*drawnLog).renumber},
	{4, (*drawnLog).oneWrongFix},
	{3, (*drawnLog).newSession},
	{1, (*drawnLog).manySessions},
	{6, (*drawnLog).setClock},
	{3, func(d *drawnLog, p *drawnPhone) { p.lagMS = pick[int64](d.rng, 0, 0, 4000, 20_000, 3_600_000) }},
	{3, func(_ *drawnLog, p *drawnPhone) { p.silent = !p.silent }},
	{25, func(d *drawnLog, _ *drawnPhone) {
		d.trueMS += pick[int64](d.rng, 1, 300, 1000, 1000, 3000, 8000, 20_000)
	}},
	{12, func(d *drawnLog, _ *drawnPhone) { d.tick() }},
	{5, (*drawnLog).jumpStamps},
	{2, (*drawnLog).oneWrongStamp},
	{2, (*drawnLog).switchSettings},
	{1, func(d *drawnLog, p *drawnPhone) { d.append(p.vehicle, []byte("\xffgarbage")) }},
}

func (d *drawnLog) append(key string, value []byte) {
	d.trueMS += int64(d.rng.IntN(3)) * int64(d.rng.IntN(400))
	jitter := int64(d.rng.IntN(3)-1) * int64(d.rng.IntN(200))
	d.records = append(d.records, eventlog.Stored{
		Offset: int64(len(d.records)), AppendTimeMS: d.trueMS + d.stampSkewMS + jitter, Key: []byte(key), Value: value,
	})
}

func (d *drawnLog) tick() { d.append("", (&wire.Location{Kind: wire.KindTick}).Append(nil)) }

func (d *drawnLog) send(p *drawnPhone, r wire.Report) {
	d.append(p.vehicle, (&wire.Location{Kind: wire.KindReport, Report: r}).Append(nil))
}

// draw draws a phone's next report, mostly of the present.
func (d *drawnLog) draw(p *drawnPhone) wire.Report {
	if p.sequence++; d.rng.IntN(40) == 0 {
		p.sequence += int64(d.rng.IntN(80))
	}
	r := wire.Report{SessionID: p.session, Sequence: p.sequence}
	nowMS := d.trueMS + p.skewMS
	if d.rng.IntN(6) > 0 {
		nowMS -= p.lagMS
	}
	for range pick(d.rng, 0, 1, 1, 1, 2, 4) {
		ms := nowMS/100*100 - pick[int64](d.rng, 0, 0, 0, 100, 1000, 3000, 7000)
		p.latDeg += float64(d.rng.IntN(5)) * 1e-5
		f := wire.Fix{DeviceTimeMS: ms, LatDeg: p.latDeg, LonDeg: 10, Has: wire.Has(d.rng.IntN(32)), Mocked: d.rng.IntN(9) == 0}
		if f.Mocked = f.Mocked && f.Has&wire.HasMocked != 0; f.Has&wire.HasAccuracy != 0 {
			f.AccuracyM = float32(1 + d.rng.IntN(3))
		}
		r.Fixes = append(r.Fixes, f)
	}
	if len(r.Fixes) == 0 || d.rng.IntN(4) == 0 {
		r.Availability = pick(d.rng, offline, free, free, free, busy, starlingv1.Availability_AVAILABILITY_RESERVED)
	}
	if d.rng.IntN(9) == 0 {
		r.HasAttributes, r.Attributes.Type = true, pick(d.rng, "van", "bus")
	}
	p.sent = append(p.sent, r)
	return r
}

// drive lets the phones that are not silent report evenly for a while.
func (d *drawnLog) drive(*drawnPhone) {
	for range 3 + d.rng.IntN(12) {
		for _, p := range d.phones {
			if !p.silent {
				d.send(p, d.draw(p))
			}
		}
		d.trueMS += pick[int64](d.rng, 500, 1000)
	}
}

// copySent sends an old report of the vehicle again, of whatever session.
func (d *drawnLog) copySent(p *drawnPhone) {
	if n := len(p.sent); n > 0 {
		d.send(p, p.sent[max(0, n-1-d.rng.IntN(pick(d.rng, 5, n)))])
	}
}

// renumber sends old fixes again as a new report, as they are or changed.
func (d *drawnLog) renumber(p *drawnPhone) {
	if len(p.sent) == 0 {
		return
	}
	r := p.sent[max(0, len(p.sent)-1-d.rng.IntN(12))]
	if d.rng.IntN(3) == 0 {
		d.newSession(p)
	}
	p.sequence++
	r.SessionID, r.Sequence, r.Fixes = p.session, p.sequence, slices.Clone(r.Fixes)
	for i := range r.Fixes {
		switch f := &r.Fixes[i]; d.rng.IntN(8) {
		case 0:
			f.LatDeg += 1e-6
		case 1:
			if !f.Mocked {
				f.Has ^= wire.HasMocked
			}
		}
	}
	p.sent = append(p.sent, r)
	d.send(p, r)
}

func (d *drawnLog) newSession(p *drawnPhone) { p.session, p.sequence = d.rng.Uint64()|1, 0 }

// manySessions lets a phone open more sessions than are remembered, and then
// sends something old.
func (d *drawnLog) manySessions(p *drawnPhone) {
	for range 5 {
		d.newSession(p)
		d.send(p, d.draw(p))
		d.trueMS += int64(d.rng.IntN(900))
	}
	d.copySent(p)
}

func (d *drawnLog) setClock(p *drawnPhone) {
	p.skewMS = pick[int64](d.rng, 0, 0, 0, 1500, 6000, 9000, 15_000, -1500, -6000, -20_000, 3_600_000, -3_600_000)
}

// oneWrongFix sends one report by a clock that is right again at once.
func (d *drawnLog) oneWrongFix(p *drawnPhone) {
	before := p.skewMS
	p.skewMS = pick[int64](d.rng, 2500, 5000, 9500, 12_000, 3_600_000, -9000)
	r := d.draw(p)
	p.skewMS = before
	if d.rng.IntN(3) == 0 {
		more := d.draw(p)
		r.Fixes = append(r.Fixes, more.Fixes...)
	}
	d.send(p, r)
}

const (
	hourMS = int64(3_600_000)
	dayMS  = 24 * hourMS
)

// jumpStamps sets the log's clock, for seconds or for good; where it is far off
// it comes back in the end.
func (d *drawnLog) jumpStamps(p *drawnPhone) {
	before := d.stampSkewMS
	d.stampSkewMS = pick(d.rng, 0, 0, 900, -900, 30_000, -30_000, 3*hourMS, -3*hourMS, 8*dayMS, -8*dayMS)
	for range d.rng.IntN(12) {
		if d.rng.IntN(3) == 0 {
			d.tick()
		} else {
			d.send(p, d.draw(p))
		}
		d.trueMS += pick[int64](d.rng, 200, 1000)
	}
	if d.rng.IntN(2) == 0 {
		d.stampSkewMS = before
	}
}

// oneWrongStamp stamps a single record by a clock that is far off.
func (d *drawnLog) oneWrongStamp(p *drawnPhone) {
	before := d.stampSkewMS
	d.stampSkewMS = pick(d.rng, 8*dayMS, -8*dayMS, 3*hourMS, -3*hourMS, hourMS/30)
	d.send(p, d.draw(p))
	d.stampSkewMS = before
}

func (d *drawnLog) switchSettings(*drawnPhone) {
	s := d.settings
	s.MaxVehicles = pick(d.rng, 1, 2, 50, 50, 50)
	l := drawSwitch(d.rng, s)
	d.append("", l.Append(nil))
}

// logResult is what became of a drawn log; failure is what is off, if anything.
type logResult struct {
	failure string
	seen    seen
	counts  wire.FixCounts
	rebased int
}

// judge steps the log by the real step, which is restored from its snapshots
// now and then, and holds every track to the slow model and the audit.
func (d *drawnLog) judge() (r logResult) {
	state := map[string][]byte{}
	p, err := trackerstep.NewPartition(d.settings, 3)
	if err != nil {
		return logResult{failure: err.Error()}
	}
	model, audit := slow.New(d.settings, 3), newAudit(d.settings)
	defer func() { r.seen = audit.seen }()
	for i, rec := range d.records {
		if d.rng.IntN(30) == 0 {
			if p, err = restored(p, d.settings, state); err != nil {
				r.failure = fmt.Sprintf("offset %d: restore: %v", i, err)
				return r
			}
		}
		got, err := p.Step(trackerstep.Record(rec))
		if err != nil {
			r.failure = fmt.Sprintf("offset %d: %v", i, err)
			return r
		}
		want, _ := model.Step(rec)
		if a, b := string(got.Track.Append(nil)), string(want.Append(nil)); a != b {
			r.failure = fmt.Sprintf("offset %d, stamp %d, %s: the step has\n%s\nthe model has\n%s", i, rec.AppendTimeMS, textOf(rec), text(a), text(b))
			return r
		}
		if audit.track(rec, &want); audit.failure != "" {
			r.failure = fmt.Sprintf("%s\n%s\n%s", audit.failure, textOf(rec), text(string(want.Append(nil))))
			return r
		}
		if got.Rebased {
			r.rebased++
		}
		addCounts(&r.counts, want.Counts)
	}
	return r
}

func textOf(rec eventlog.Stored) string {
	var l wire.Location
	if err := l.Unmarshal(rec.Value); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s %+v", rec.Key, l)
}

// restored stores what has changed and returns the partition that another owner
// makes of it.
func restored(p *trackerstep.Partition, s trackerstep.Settings, state map[string][]byte) (*trackerstep.Partition, error) {
	snapshot := p.Snapshot(nil, nil)
	l, err := trackerstep.NewLoader(s, 3)
	if err != nil {
		return nil, err
	}
	for _, c := range snapshot.Changes {
		if c.Value == nil {
			delete(state, string(c.Key))
		} else {
			state[string(c.Key)] = c.Value
		}
	}
	for key, value := range state {
		if err := l.Add([]byte(key), value); err != nil {
			return nil, err
		}
	}
	return l.Partition(snapshot.Resume, trackerstep.Bounds{End: snapshot.Resume})
}

const recordsPerLog = 150

// TestLogs steps many drawn logs: far more of the step's rules meet in one of
// them than in a run of the roles, and nothing but the step is judged.
func TestLogs(t *testing.T) {
	var mu sync.Mutex
	var sum logResult
	eachSeed(t, drawnLogs, func(t *testing.T, seed uint64) {
		r := drawLog(seed, recordsPerLog).judge()
		require.Empty(t, r.failure, "repeat it with: go test ./internal/modeltest -run TestLogs -seed %d", seed)
		mu.Lock()
		defer mu.Unlock()
		sum.add(r)
	})
	t.Cleanup(func() {
		t.Logf("%+v", sum)
		if *oneSeed == 0 && !t.Failed() {
			require.NotContains(t, fmt.Sprintf("%+v", sum), ":0", "something never happens")
		}
	})
}

func (r *logResult) add(o logResult) {
	r.rebased += o.rebased
	addCounts(&r.counts, o.counts)
	r.seen.believedAhead += o.seen.believedAhead
	r.seen.believedBack += o.seen.believedBack
	r.seen.setAside += o.seen.setAside
	r.seen.conflicting += o.seen.conflicting
	r.seen.dispatchable += o.seen.dispatchable
	r.seen.aged += o.seen.aged
	r.seen.returned += o.seen.returned
	r.seen.repeated += o.seen.repeated
	r.seen.forgottenSoon += o.seen.forgottenSoon
}

func addCounts(to *wire.FixCounts, n wire.FixCounts) {
	to.Accepted += n.Accepted
	to.Duplicate += n.Duplicate
	to.Conflict += n.Conflict
	to.Late += n.Late
	to.SetAside += n.SetAside
	to.Refused += n.Refused
}

// eachSeed runs the seeds from 1 on, two at a time, or the one of the flag.
func eachSeed(t *testing.T, last uint64, run func(*testing.T, uint64)) {
	first := uint64(1)
	if *oneSeed > 0 {
		first, last = *oneSeed, *oneSeed
	}
	var next atomic.Uint64
	next.Store(first)
	for worker := range 2 {
		t.Run(fmt.Sprint("worker ", worker), func(t *testing.T) {
			t.Parallel()
			for {
				seed := next.Add(1) - 1
				if seed > last || t.Failed() {
					return
				}
				run(t, seed)
			}
		})
	}
}
