package step

import (
	"errors"
	"fmt"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// maxScratchPoints is how many points a partition keeps capacity for between
// two steps.
const maxScratchPoints = 1024

// Record is one record of the partition's topic `locations`.
type Record struct {
	// Offset is the record's offset in its partition.
	Offset int64
	// AppendTimeMS is the log's stamp, in milliseconds since the Unix epoch.
	AppendTimeMS int64
	// Key and Value are as appended; the step keeps neither.
	Key, Value []byte
}

// Result is what one step returns.
type Result struct {
	// Track is the one record of `tracks` that the source record yields. It
	// belongs to the partition and is valid until the next step.
	Track *wire.Track
	// Poison is not nil when the record could not be processed. Then it has
	// changed nothing but stream time and the offset (and fired the timers of
	// other vehicles, as every record does).
	Poison error
	// Kind is what the record was, KindUnknown if it could not be decoded.
	Kind wire.LocationKind
	// Rebased is true if the record made the step follow its vehicle at another
	// device time.
	Rebased bool
}

// Step moves the partition by the next record of its log. It fails with
// *UnknownVersionError at a version switch that it can't follow, and when the
// record is not after the last one; in both cases nothing has changed.
func (p *Partition) Step(rec Record) (Result, error) {
	if rec.Offset <= p.offset {
		return Result{}, fmt.Errorf("step: offset %d comes after offset %d", rec.Offset, p.offset)
	}
	t := p.resetTrack(rec.Offset)
	poison := p.location.Unmarshal(rec.Value)
	if poison == nil && p.location.Kind == wire.KindVersionSwitch {
		if err := p.switchVersion(rec.Offset, &p.location.Switch); err != nil {
			return Result{}, err
		}
	}
	p.streamMS = max(p.streamMS, rec.AppendTimeMS)
	p.offset = rec.Offset
	t.ClockMS = p.streamMS

	if poison == nil {
		poison = p.stepEvent(rec.Key, t)
	}
	if poison != nil {
		poison = fmt.Errorf("offset %d: %w", rec.Offset, poison)
		p.blank(t)
	}
	if err := p.fireTimers(t); err != nil {
		poison = errors.Join(poison, fmt.Errorf("offset %d: %w", rec.Offset, err))
	}
	return Result{Track: t, Poison: poison, Kind: p.location.Kind, Rebased: p.rebased && poison == nil}, nil
}

func (p *Partition) resetTrack(offset int64) *wire.Track {
	t := &p.track
	if cap(t.Points)+cap(t.FinalPoints) > maxScratchPoints {
		t.Points, t.FinalPoints = nil, nil
	}
	t.Epoch = p.epoch
	t.SourceOffset, t.PreviousSourceOffset = offset, p.offset
	t.Dues = t.Dues[:0]
	p.rebased = false
	p.blank(t)
	return t
}

// blank takes out of the track what the record did to its own vehicle.
func (p *Partition) blank(t *wire.Track) {
	t.Counts = wire.FixCounts{}
	t.HasLive = false
	t.Points, t.FinalPoints, t.LateFixes = t.Points[:0], t.FinalPoints[:0], t.LateFixes[:0]
}

func (p *Partition) stepEvent(key []byte, t *wire.Track) error {
	switch p.location.Kind {
	case wire.KindTick, wire.KindVersionSwitch:
		return nil
	case wire.KindReport:
		v, known := p.vehicles[string(key)]
		if !known {
			if err := validVehicleID(key); err != nil {
				return err
			}
			v = &vehicle{id: string(key), timerSlot: noSlot, track: track{liveValid: true}, seenMS: p.streamMS}
		}
		if err := validReport(&p.location.Report); err != nil {
			return err
		}
		if err := p.stepReportSafely(v, known, t); err != nil {
			return err
		}
		if !known {
			p.vehicles[v.id] = v
		}
		p.markChanged(v)
		p.timers.scheduleBy(v, p.timerMS(v))
		return nil
	}
	return errors.New("location record without an event")
}

// stepReportSafely turns a panic of the step into an error that leaves the
// vehicle as it was. A panic in an index or the filter is a fault of the
// program, but one record must not stop a partition for good.
func (p *Partition) stepReportSafely(v *vehicle, known bool, t *wire.Track) (err error) {
	if known {
		p.undo.save(v)
	}
	defer func() {
		if r := recover(); r != nil {
			if known {
				p.undo.restore(v)
			}
			err = fmt.Errorf("step of vehicle %s panicked: %v", v.id, r)
		}
	}()
	p.stepReport(v, &p.location.Report, t)
	return nil
}

func (p *Partition) stepReport(v *vehicle, report *wire.Report, t *wire.Track) {
	p.fireOwn(v, t)
	at := v.sessions.observe(report.SessionID, report.Sequence)
	fixes := p.byTime(report.Fixes)
	if len(fixes) > 0 && p.mustRebase(v, at, fixes[len(fixes)-1].DeviceTimeMS) {
		p.rebase(v, report, t)
	}
	p.insert(&v.track, p.judge(v, at, fixes, t), t)
	if at.opened {
		v.availabilitySeq, v.attributesSeq = 0, 0
	}
	if at.newest && !at.recognised {
		v.describe(report)
	}
	v.counts.Accepted += t.Counts.Accepted
	v.counts.Duplicate += t.Counts.Duplicate
	v.counts.Conflict += t.Counts.Conflict
	v.counts.Late += t.Counts.Late
	v.seenMS, v.refreshedMS = p.streamMS, p.streamMS
	t.HasLive = true
	p.view(v, &t.Live)
}

// fireOwn fires the timers of the record's own vehicle. A refresh or that it was
// forgotten needs no mention: the record publishes its view.
func (p *Partition) fireOwn(v *vehicle, t *wire.Track) {
	silent := p.streamMS - v.seenMS
	if silent >= p.settings.WindowMS {
		t.FinalPoints = p.closeAll(&v.track, t.FinalPoints)
	}
	if silent >= p.settings.ForgetAfterMS {
		*v = vehicle{id: v.id, timerSlot: v.timerSlot, dirty: v.dirty, track: track{window: v.window[:0], liveValid: true}}
	}
}

// describe applies the availability and attributes of a report of the newest
// session.
func (v *vehicle) describe(report *wire.Report) {
	if report.Availability != starlingv1.Availability_AVAILABILITY_UNSPECIFIED && report.Sequence > v.availabilitySeq {
		v.availability, v.availabilitySeq = report.Availability, report.Sequence
	}
	if report.HasAttributes && report.Sequence > v.attributesSeq {
		attributes := report.Attributes
		attributes.Tags = append([]string(nil), attributes.Tags...)
		v.attributes, v.attributesSeq = &attributes, report.Sequence
	}
}

// byTime returns the fixes by device time; equal times keep their order.
func (p *Partition) byTime(fixes []wire.Fix) []wire.Fix {
	inOrder := true
	for i := 1; i < len(fixes) && inOrder; i++ {
		inOrder = fixes[i-1].DeviceTimeMS <= fixes[i].DeviceTimeMS
	}
	if inOrder {
		return fixes
	}
	p.sorted = append(p.sorted[:0], fixes...)
	sortByTime(p.sorted)
	return p.sorted
}

// judge counts each fix, given by device time, and returns the new ones.
func (p *Partition) judge(v *vehicle, at standing, fixes []wire.Fix, t *wire.Track) []wire.Fix {
	p.accepted = p.accepted[:0]
	for i := range fixes {
		fix := &fixes[i]
		first, found := find(v.window, fix.DeviceTimeMS)
		if n := len(p.accepted); !found && n > 0 && p.accepted[n-1].DeviceTimeMS == fix.DeviceTimeMS {
			first, found = &p.accepted[n-1], true
		}
		switch {
		case found && *first == *fix:
			t.Counts.Duplicate++
		case found:
			t.Counts.Conflict++
		case fix.DeviceTimeMS >= v.lowWatermarkMS && !at.fenced:
			t.Counts.Accepted++
			p.accepted = append(p.accepted, *fix)
		case at.recognised:
			t.Counts.Duplicate++
		default:
			t.Counts.Late++
			t.LateFixes = append(t.LateFixes, *fix)
		}
	}
	return p.accepted
}

func (p *Partition) markChanged(v *vehicle) {
	if !v.dirty {
		v.dirty = true
		p.changed = append(p.changed, v)
	}
}
