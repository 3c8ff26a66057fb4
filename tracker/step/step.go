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
	// JumpPending is true if stamps are beyond a jump that is not believed yet;
	// then no timer expires. BelievedMS is how far stream time has jumped by this
	// record, 0 for not at all.
	JumpPending bool
	BelievedMS  int64
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
	p.stampMS = rec.AppendTimeMS
	believedMS := p.advance(rec.AppendTimeMS)
	p.offset = rec.Offset
	t.ClockMS, t.AppendTimeMS = p.streamMS, 0
	if rec.AppendTimeMS != p.streamMS {
		t.AppendTimeMS = rec.AppendTimeMS
	}

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
	return Result{Track: t, Poison: poison, Kind: p.location.Kind, Rebased: p.rebased && poison == nil,
		JumpPending: p.jump.pending(), BelievedMS: believedMS}, nil
}

func (p *Partition) resetTrack(offset int64) *wire.Track {
	t := &p.track
	if cap(t.Points)+cap(t.FinalPoints) > maxScratchPoints {
		t.Points, t.FinalPoints = nil, nil
	}
	t.Epoch = p.epoch
	t.SourceOffset, t.PreviousSourceOffset = offset, p.offset
	t.Fired = t.Fired[:0]
	p.rebased = false
	p.blank(t)
	return t
}

// blank takes out of the track what the record did to its own vehicle.
func (p *Partition) blank(t *wire.Track) {
	t.Counts, t.Refusal = wire.FixCounts{}, 0
	t.HasLive = false
	t.Points, t.FinalPoints = t.Points[:0], t.FinalPoints[:0]
	t.LateFixes, t.SetAsideFixes = t.LateFixes[:0], t.SetAsideFixes[:0]
	t.SessionID, t.Sequence, t.ErasedUntilMS = 0, 0, 0
	t.Outcomes, t.LateRules, t.SetAsideRules = t.Outcomes[:0], t.LateRules[:0], t.SetAsideRules[:0]
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
			v = newVehicle(string(key))
			v.seenMS = p.streamMS
		}
		if err := validReport(&p.location.Report); err != nil {
			return err
		}
		if !known && len(p.vehicles) >= p.settings.MaxVehicles {
			t.Refusal = starlingv1.Refusal_REFUSAL_PARTITION_FULL
			t.Counts.Refused = int64(len(p.location.Report.Fixes))
			p.nameReport(t)
			for _, fix := range p.byTime(p.location.Report.Fixes) {
				p.outcome(t, starlingv1.OutcomeRule_OUTCOME_RULE_PARTITION_FULL, fix)
			}
			return nil
		}
		before := p.notableIn(v)
		if err := p.stepReportSafely(v, known, t); err != nil {
			return err
		}
		p.recount(before, p.notableIn(v))
		if !known {
			p.vehicles[v.id] = v
		}
		p.markChanged(v)
		p.timers.scheduleBy(v, p.timerMS(v))
		return nil
	case wire.KindProposal, wire.KindRelease:
		p.stepPromise(key, t)
		return nil
	case wire.KindReasserted:
		p.stepReasserted()
		return nil
	case wire.KindErasure:
		if p.version.Outcomes {
			return p.stepErasure(key, t)
		}
	}
	return errors.New("location record without an event")
}

// stepReportSafely turns a panic of the step into an error that leaves the
// vehicle as it was. A panic in an index or the filter is a fault of the
// program, but one record must not stop a partition for good.
func (p *Partition) stepReportSafely(v *vehicle, known bool, t *wire.Track) (err error) {
	p.undo.reset()
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

// stepReport is the order in which the rules apply (docs/step.md).
func (p *Partition) stepReport(v *vehicle, report *wire.Report, t *wire.Track) {
	p.nameReport(t)
	p.fireOwn(v, t)
	at := v.sessions.observe(report.SessionID, report.Sequence, p.streamMS)
	fixes := p.byTime(report.Fixes)
	now := p.presentFor(v)
	p.decideAuthority(v, &at, fixes, now)
	if len(fixes) > 0 {
		p.stepFixes(v, &at, report, fixes, now, t)
	}
	if !at.recognised {
		v.state(at, report)
		v.reports = min(v.reports+1, enoughReports)
	}
	v.counts.Accepted += t.Counts.Accepted
	v.counts.Duplicate += t.Counts.Duplicate
	v.counts.Conflict += t.Counts.Conflict
	v.counts.Late += t.Counts.Late
	v.counts.SetAside += t.Counts.SetAside
	v.seenMS, v.publishedMS, v.jumpSinceMS = p.streamMS, p.streamMS, p.jump.sinceMS
	t.HasLive = true
	p.view(v, &t.Live)
}

// stepFixes processes the fixes of a report, by device time and at least one.
func (p *Partition) stepFixes(v *vehicle, at *standing, report *wire.Report, fixes []wire.Fix, now present, t *wire.Track) {
	limit := p.limitMS(v, *at, fixes, now)
	if p.mustRebase(v, at, fixes, limit, now) {
		p.rebase(v, report, t)
	}
	accepted := p.judge(v, *at, fixes, limit, t)
	newestMS, before := fixes[len(fixes)-1].DeviceTimeMS, v.newestMS
	p.insert(v, accepted, t)
	if n := len(accepted); at.authoritative && !at.recognised && newestMS > before && n > 0 && accepted[n-1].DeviceTimeMS == newestMS {
		p.learn(v, newestMS)
	}
}

// fireOwn fires the timers of the record's own vehicle. A refresh or that it was
// forgotten needs no mention: the record publishes its view.
func (p *Partition) fireOwn(v *vehicle, t *wire.Track) {
	silent := p.streamMS - v.seenMS
	if silent >= p.settings.WindowMS {
		t.FinalPoints = p.closeAll(v, t.FinalPoints)
	}
	if p.streamMS >= v.conflictUntilMS {
		v.conflictUntilMS = 0
	}
	if silent >= p.forgetAfterMS(v) {
		p.undo.closed = v.window.appendTo(p.undo.closed)
		v.forget()
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

func (p *Partition) markChanged(v *vehicle) {
	if !v.dirty {
		v.dirty = true
		p.changed = append(p.changed, v)
	}
}
