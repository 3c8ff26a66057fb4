package matcher

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/wire"
)

// partition is how far one partition of `tracks` has been read.
type partition struct {
	// streamMS is the partition's stream time, 0 before it is known.
	streamMS atomic.Int64
	// appendMS is the append time of the newest record of `locations` that its
	// tracker has answered.
	appendMS atomic.Int64
	// empty is true while the partition has never had a record.
	empty atomic.Bool

	// What follows belongs to Run.

	// epoch and source are the last record's that counted, if positioned.
	epoch, source int64
	positioned    bool
	populated     bool  // a vehicle was put into the index
	hole          *hole // nil unless the records read last follow one that is missing
	next          int64 // offset of the next record to read
	rebuiltAt     int64 // the offset from which on the partition counts as rebuilt
	rebuilt       bool
	staged        staged // views that wait until it is rebuilt
	departures    departures
}

// hole is where records of a partition are missing.
type hole struct {
	// offset is that of the first record behind it.
	offset int64
	// newestMS is the largest append time behind it, and openMS for how long it
	// has been overtaken.
	newestMS, openMS int64
}

// holePatience is how long, in append time, the records that are missing may be
// overtaken by later ones. A tracker whose log refuses a record stops at it,
// but may have handed over a few more by then, which are stored; whoever takes
// the partition up publishes all of them again, in order.
const holePatience = time.Minute

// holeStep is how much of a silence between two records behind a hole counts:
// while no tracker publishes, none can be expected to fill it. One that runs
// publishes a tick every second.
const holeStep = 5 * time.Second

// holeError says that a hole was not filled in time.
type holeError struct {
	partition      int32
	hole           hole
	source, behind int64
}

func (e *holeError) Error() string {
	return fmt.Sprintf("tracks partition %d offset %d: hole: records follow source offset %d, the last one read was %d, and nobody has published what is missing for %v",
		e.partition, e.hole.offset, e.behind, e.source, holePatience)
}

// apply takes in a batch. Each record becomes visible by itself; a search sees
// a whole number of views.
func (m *Matcher) apply(b eventlog.Batch) error {
	p := &m.partitions[b.Partition]
	m.logEpoch = m.log.Epoch()
	for i := range b.Records {
		if i > 0 && i%warmRun == 0 {
			runtime.Gosched() // searches that came meanwhile go first
		}
		if i%warmRun == 0 && m.index.Len() > warmFrom && !m.stages(p) {
			m.warm(b.Records[i:])
		}
		r := &b.Records[i]
		if err := m.applyRecord(p, b.Partition, r); err != nil {
			return fmt.Errorf("tracks partition %d offset %d: %w", b.Partition, r.Offset, err)
		}
		p.next = r.Offset + 1
	}
	if n := len(b.Records); n > 0 {
		p.empty.Store(false)
		if p.rebuilt {
			nowMS, appendMS := m.now().UnixMilli(), b.Records[n-1].AppendTimeMS
			m.skew.note(nowMS, appendMS)
			lag := nowMS - appendMS
			m.metrics.applySeconds.Observe(float64(max(lag, 0)) / 1000)
		}
	}
	return nil
}

const (
	// warmRun is how many records the index is warmed up for at a time.
	warmRun = 32
	// warmFrom is the size of a fleet that fits the processor's cache anyway.
	warmFrom = 5000
)

// warm tells the index whose views come next: a record's key is its vehicle.
func (m *Matcher) warm(records []eventlog.Stored) {
	m.nextIDs = m.nextIDs[:0]
	for i := range min(len(records), warmRun) {
		if len(records[i].Key) > 0 {
			m.nextIDs = append(m.nextIDs, records[i].Key)
		}
	}
	if len(m.nextIDs) > 1 {
		m.index.Warm(m.nextIDs)
	}
}

func (m *Matcher) applyRecord(p *partition, number int32, r *eventlog.Stored) error {
	t := &m.track
	// The decoder makes no new string for an id that it finds in the struct, and
	// the record's vehicle is its key. Records do not change, and the index
	// keeps a copy of its own.
	t.Live.VehicleID = unsafe.String(unsafe.SliceData(r.Key), len(r.Key))
	if err := t.UnmarshalLive(r.Value); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	counts, err := m.advance(p, number, t, r)
	if err != nil || !counts {
		return err
	}
	m.metrics.records.Inc()
	appendMS := t.AppendTimeMS
	if appendMS == 0 {
		appendMS = t.ClockMS
	}
	m.noteStream(p, t.ClockMS, appendMS)
	if m.resident != nil {
		m.dropDeparted(p)
	}
	// What time did to vehicles comes before what the record's own vehicle
	// reported.
	for i := range t.Dues {
		switch d := &t.Dues[i]; {
		case d.Forgotten:
			delete(p.departures.left, d.VehicleID)
			m.forget(p, d.VehicleID)
		case d.HasLive:
			m.upsert(p, &d.Live)
		}
	}
	if t.HasLive {
		m.record(t.Live.VehicleID, r.Value)
		m.upsert(p, &t.Live)
	}
	return nil
}

// record puts the fixes of a report on the vehicle's tape, if it has one.
func (m *Matcher) record(id string, value []byte) {
	buffer := m.playout.Of(id)
	if buffer == nil {
		return
	}
	m.whole.Live.VehicleID = ""
	if err := m.whole.Unmarshal(value); err != nil {
		m.metrics.invalidViews.Inc()
		m.logger.Error("the points of a record of tracks cannot be decoded and are not played out", "vehicle", id, "error", err)
		return
	}
	m.playout.Record(buffer, &m.whole)
}

// advance moves the partition's position to the record and says whether the
// record counts.
func (m *Matcher) advance(p *partition, number int32, t *wire.Track, r *eventlog.Stored) (counts bool, err error) {
	switch {
	case t.Epoch < m.logEpoch || p.positioned && t.Epoch < p.epoch:
		m.metrics.outdated.Inc()
		return false, nil
	case !p.positioned:
	case t.Epoch > p.epoch:
		m.logger.Warn("a new epoch begins, its vehicles are unknown until they report", "partition", number, "epoch", t.Epoch)
		m.startOver(number)
	case t.SourceOffset <= p.source:
		m.metrics.repeats.Inc()
		return false, nil
	case t.PreviousSourceOffset != p.source:
		return false, m.skip(p, number, t, r)
	}
	if p.hole != nil {
		m.logger.Info("the hole in tracks is filled", "partition", number, "offset", p.hole.offset)
		p.hole = nil
	}
	p.epoch, p.source, p.positioned = t.Epoch, t.SourceOffset, true
	return true, nil
}

// skip passes over a record behind a hole. The partition's clock stands still
// meanwhile, so answers soon name the partition as stale.
func (m *Matcher) skip(p *partition, number int32, t *wire.Track, r *eventlog.Stored) error {
	if p.hole == nil {
		m.metrics.holes.Inc()
		m.logger.Warn("hole in tracks, waiting for the records to be published again", "partition", number, "expected", p.source, "follows", t.PreviousSourceOffset)
		p.hole = &hole{offset: r.Offset, newestMS: r.AppendTimeMS}
	}
	m.metrics.skipped.Inc()
	p.hole.openMS += min(max(r.AppendTimeMS-p.hole.newestMS, 0), holeStep.Milliseconds())
	p.hole.newestMS = max(p.hole.newestMS, r.AppendTimeMS)
	if p.hole.openMS > holePatience.Milliseconds() {
		return &holeError{partition: number, hole: *p.hole, source: p.source, behind: t.PreviousSourceOffset}
	}
	return nil
}

func (m *Matcher) upsert(p *partition, v *wire.View) {
	if m.stages(p) {
		p.staged.put(v)
		return
	}
	wanted, here := m.wants(p, v)
	if !wanted {
		return
	}
	if err := m.index.Upsert(v); err != nil {
		m.metrics.invalidViews.Inc()
		m.logger.Error("a view in tracks breaks a rule, the vehicle keeps its former state", "vehicle", v.VehicleID, "error", err)
		return
	}
	p.populated = true
	if m.resident != nil {
		p.departures.note(v.VehicleID, here, p.streamMS.Load())
	}
}

func (m *Matcher) forget(p *partition, id string) {
	if m.stages(p) && p.staged.forget(id) || m.index.Remove(id) {
		m.metrics.forgotten.Inc()
	}
}
