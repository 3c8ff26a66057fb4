package follow

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
	gap           *gap  // nil unless the records read last follow one that is missing
	next          int64 // offset of the next record to read
	rebuiltAt     int64 // the offset from which on the partition counts as rebuilt
	rebuilt       bool
	staged        staged // views that wait until it is rebuilt
	departures    departures
}

// gap is where records of a partition are missing.
type gap struct {
	// offset is that of the first record behind it.
	offset int64
	// newestMS is the largest append time behind it, and openMS for how long it
	// has been overtaken.
	newestMS, openMS int64
}

// gapPatience is how long, in append time, the records that are missing may be
// overtaken by later ones. A tracker whose log refuses a record stops at it,
// but may have handed over a few more by then, which are stored; the owner that takes
// the partition up publishes all of them again, in order.
const gapPatience = time.Minute

// gapStep is how much of a silence between two records behind a gap counts:
// while no tracker publishes, none can be expected to fill it. One that runs
// publishes a tick every second.
const gapStep = 5 * time.Second

// gapError is the error for a gap that was not filled in time.
type gapError struct {
	partition      int32
	gap            gap
	source, behind int64
}

func (e *gapError) Error() string {
	return fmt.Sprintf("tracks partition %d offset %d: gap: records follow source offset %d, the last one read was %d, and nobody has published what is missing for %v",
		e.partition, e.gap.offset, e.behind, e.source, gapPatience)
}

// apply takes in a batch. Each record becomes visible by itself; a search sees
// a whole number of views.
func (f *Follower) apply(b eventlog.Batch) error {
	p := &f.partitions[b.Partition]
	f.logEpoch = f.log.Epoch()
	for i := range b.Records {
		if i > 0 && i%warmRun == 0 {
			runtime.Gosched() // searches that came meanwhile go first
		}
		if i%warmRun == 0 && f.index.Len() > warmFrom && !f.stages(p) {
			f.warm(b.Records[i:])
		}
		r := &b.Records[i]
		if err := f.applyRecord(p, b.Partition, r); err != nil {
			return fmt.Errorf("tracks partition %d offset %d: %w", b.Partition, r.Offset, err)
		}
		p.next = r.Offset + 1
	}
	if n := len(b.Records); n > 0 {
		p.empty.Store(false)
		if p.rebuilt {
			nowMS, appendMS := f.now().UnixMilli(), b.Records[n-1].AppendTimeMS
			f.skew.note(nowMS, appendMS)
			lag := nowMS - appendMS
			f.metrics.applySeconds.Observe(float64(max(lag, 0)) / 1000)
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

// warm prepares the index for the views that come next: a record's key is its vehicle.
func (f *Follower) warm(records []eventlog.Stored) {
	f.nextIDs = f.nextIDs[:0]
	for i := range min(len(records), warmRun) {
		if len(records[i].Key) > 0 {
			f.nextIDs = append(f.nextIDs, records[i].Key)
		}
	}
	if len(f.nextIDs) > 1 {
		f.index.Warm(f.nextIDs)
	}
}

func (f *Follower) applyRecord(p *partition, number int32, r *eventlog.Stored) error {
	t := &f.track
	// The decoder makes no new string for an id that it finds in the struct, and
	// the record's vehicle is its key. Records do not change, and the index
	// keeps a copy of its own.
	t.Live.VehicleID = unsafe.String(unsafe.SliceData(r.Key), len(r.Key))
	if err := t.UnmarshalLive(r.Value); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	counts, err := f.advance(p, number, t, r)
	if err != nil || !counts {
		return err
	}
	f.metrics.records.Inc()
	appendMS := t.AppendTimeMS
	if appendMS == 0 {
		appendMS = t.ClockMS
	}
	f.noteStream(p, t.ClockMS, appendMS)
	if f.resident != nil {
		f.dropDeparted(p)
	}
	// What time did to vehicles comes before what the record's own vehicle
	// reported.
	for i := range t.Fired {
		switch d := &t.Fired[i]; {
		case d.Forgotten:
			delete(p.departures.left, d.VehicleID)
			f.forget(p, d.VehicleID)
		case d.HasLive:
			f.noteAgreement(p, t, &d.Live)
			f.upsert(p, &d.Live)
		}
	}
	if t.Refusal != 0 {
		f.metrics.refused.Inc()
		f.refusals.note(string(r.Key), Refusal{t.Refusal, t.ClockMS})
	}
	if t.HasLive {
		f.record(t.Live.VehicleID, r.Value)
		f.noteAgreement(p, t, &t.Live)
		f.upsert(p, &t.Live)
	}
	if f.observe != nil {
		f.observe(number, t)
	}
	return nil
}

// noteAgreement looks at what is published now, not at the settings of before that
// a rebuild still reads.
func (f *Follower) noteAgreement(p *partition, t *wire.Track, v *wire.View) {
	if p.rebuilt {
		f.agreement.note(v, t.ClockMS, t.ClockMS)
	}
}

// record puts the fixes of a report into the vehicle's buffer, if it has one.
func (f *Follower) record(id string, value []byte) {
	buffer := f.playout.Of(id)
	if buffer == nil {
		return
	}
	f.whole.Live.VehicleID = ""
	if err := f.whole.Unmarshal(value); err != nil {
		f.metrics.invalidViews.Inc()
		f.logger.Error("the points of a record of tracks cannot be decoded and are not played out", "vehicle", id, "error", err)
		return
	}
	f.playout.Record(buffer, &f.whole)
}

// advance moves the partition's position to the record and reports whether the
// record counts.
func (f *Follower) advance(p *partition, number int32, t *wire.Track, r *eventlog.Stored) (counts bool, err error) {
	switch {
	case t.Epoch < f.logEpoch || p.positioned && t.Epoch < p.epoch:
		f.metrics.outdated.Inc()
		return false, nil
	case !p.positioned:
	case t.Epoch > p.epoch:
		f.logger.Warn("a new epoch begins, its vehicles are unknown until they report", "partition", number, "epoch", t.Epoch)
		f.startOver(number)
	case t.SourceOffset <= p.source:
		f.metrics.repeats.Inc()
		return false, nil
	case t.PreviousSourceOffset != p.source:
		return false, f.skip(p, number, t, r)
	}
	if p.gap != nil {
		f.logger.Info("the gap in tracks is filled", "partition", number, "offset", p.gap.offset)
		p.gap = nil
	}
	p.epoch, p.source, p.positioned = t.Epoch, t.SourceOffset, true
	return true, nil
}

// skip passes over a record behind a gap. The partition's clock stands still
// meanwhile, so answers soon name the partition as stale.
func (f *Follower) skip(p *partition, number int32, t *wire.Track, r *eventlog.Stored) error {
	if p.gap == nil {
		f.metrics.gaps.Inc()
		f.logger.Warn("gap in tracks, waiting for the records to be published again", "partition", number, "expected", p.source, "follows", t.PreviousSourceOffset)
		p.gap = &gap{offset: r.Offset, newestMS: r.AppendTimeMS}
	}
	f.metrics.skipped.Inc()
	p.gap.openMS += min(max(r.AppendTimeMS-p.gap.newestMS, 0), gapStep.Milliseconds())
	p.gap.newestMS = max(p.gap.newestMS, r.AppendTimeMS)
	if p.gap.openMS > gapPatience.Milliseconds() {
		return &gapError{partition: number, gap: *p.gap, source: p.source, behind: t.PreviousSourceOffset}
	}
	return nil
}

func (f *Follower) upsert(p *partition, v *wire.View) {
	if f.stages(p) {
		p.staged.put(v)
		return
	}
	wanted, here := f.wants(p, v)
	if !wanted {
		return
	}
	if err := f.index.Upsert(v); err != nil {
		f.metrics.invalidViews.Inc()
		f.logger.Error("a view in tracks breaks a rule, the vehicle keeps its former state", "vehicle", v.VehicleID, "error", err)
		return
	}
	p.populated = true
	if f.resident != nil {
		p.departures.note(v.VehicleID, here, p.streamMS.Load())
	}
}

func (f *Follower) forget(p *partition, id string) {
	if f.stages(p) && p.staged.forget(id) || f.index.Remove(id) {
		f.metrics.forgotten.Inc()
	}
}
