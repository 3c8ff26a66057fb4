package step

import (
	"crypto/sha256"
	"unsafe"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/reserve"
)

// Filter is the part of gpsfilter.Filter that the step needs, and the digest of
// its golden outputs.
type Filter interface {
	Step(s *gpsfilter.State, fix gpsfilter.Fix) gpsfilter.Estimate
	GoldenDigest() [sha256.Size]byte
}

// Partition is the state of one partition of `locations` and the step that
// moves it. It is not safe for concurrent use.
type Partition struct {
	// carried are the step versions that the partition may be switched to, and
	// version is the one in force.
	carried  Versions
	version  *Version
	settings Settings
	filter   Filter
	epoch    int64
	// streamMS is the partition's stream time: the largest append time that is
	// believed. jump is what is not yet believed.
	streamMS int64
	jump     jump
	// offset is the last record that was stepped, -1 for none.
	offset   int64
	vehicles map[string]*vehicle
	// notable counts the vehicles that an operator may want to look at.
	notable notable
	timers  timers
	// repeated is the last timer that did nothing but publish a view again. It
	// stands in the checkpoint, and shows which vehicles were published so since
	// their state was written.
	repeated moment
	// assertions are who has restated promises in this epoch.
	assertions reserve.Assertions

	// changed and forgotten are what the next snapshot has to write.
	changed   []*vehicle
	forgotten []string

	// savepoints are those of the vehicles that have any, and nextSavepoints the
	// index of those that are taken next once there are most.
	savepoints     []*savepoints
	nextSavepoints int

	// Scratch of one step.
	stampMS  int64 // the record's append time
	location wire.Location
	track    wire.Track
	sorted   []wire.Fix
	accepted []wire.Fix
	undo     undo
	rebased  bool
	touched  uint64 // keeps the compiler from dropping what Warm reads
}

// NewPartition returns a partition that has read nothing and steps by the newest
// version. The epoch is the log's. It fails when the settings break a rule.
func NewPartition(settings Settings, epoch int64) (*Partition, error) {
	return Carried().NewPartition(settings, epoch)
}

// NewPartition is the function NewPartition of a binary that carries these
// versions.
func (c Versions) NewPartition(settings Settings, epoch int64) (*Partition, error) {
	p := &Partition{carried: c, epoch: epoch, offset: -1, vehicles: make(map[string]*vehicle)}
	if err := p.use(c.newest(), settings); err != nil {
		return nil, err
	}
	return p, nil
}

// Version is the step version that the partition steps by.
func (p *Partition) Version() int32 { return p.version.Number }

// Settings are what the partition steps by.
func (p *Partition) Settings() Settings { return p.settings }

// Offset is the last record that was stepped, -1 for none.
func (p *Partition) Offset() int64 { return p.offset }

// StreamTimeMS is the partition's stream time in milliseconds since the Unix
// epoch: the largest append time that is believed.
func (p *Partition) StreamTimeMS() int64 { return p.streamMS }

// Vehicles is how many vehicles the partition knows.
func (p *Partition) Vehicles() int { return len(p.vehicles) }

// JumpPending returns true while stamps lie beyond a jump that is not believed.
func (p *Partition) JumpPending() bool { return p.jump.pending() }

// ConflictingVehicles is how many vehicles two phones report for.
func (p *Partition) ConflictingVehicles() int { return p.notable.conflicting }

// ClocksOff is how many vehicles' devices have a clock that is known to be off by
// more than Settings.AheadToleranceMS.
func (p *Partition) ClocksOff() int { return p.notable.clocksOff }

// TimersPending returns true if expired timers wait for the next record, because
// there were too many for the last one.
func (p *Partition) TimersPending() bool {
	at, _, ok := p.timers.first()
	return ok && at <= p.streamMS
}

// notable counts vehicles that are conflicting or whose device's clock is off. It
// is not state: it follows from the vehicles.
type notable struct {
	conflicting, clocksOff int
}

// notableIn is one vehicle's part.
func (p *Partition) notableIn(v *vehicle) (n notable) {
	if v.conflictUntilMS != 0 {
		n.conflicting = 1
	}
	if off := v.clock.aheadMS(); max(off, -off) > p.settings.AheadToleranceMS {
		n.clocksOff = 1
	}
	return n
}

// recount replaces one vehicle's part by another.
func (p *Partition) recount(before, after notable) {
	p.notable.conflicting += after.conflicting - before.conflicting
	p.notable.clocksOff += after.clocksOff - before.clocksOff
}

// countAll counts all vehicles anew.
func (p *Partition) countAll() {
	p.notable = notable{}
	for _, v := range p.vehicles {
		p.recount(notable{}, p.notableIn(v))
	}
}

const (
	// WarmMax is how many vehicles Warm looks at in one go. What a step needs of one
	// is some two dozen cache lines.
	WarmMax = 16
	// warmFrom is how many vehicles fit into the processor's caches anyway.
	warmFrom  = 200
	cacheLine = 64
)

// Warm brings into the processor's cache what steps of these vehicles are about to
// touch, of the first WarmMax of them. It changes nothing and may be left out. A step
// of one vehicle among many waits for memory from map to vehicle to window; Warm takes
// each of these for all of the vehicles before the next, so that the processor waits
// for many at a time.
func (p *Partition) Warm(ids [][]byte) {
	if len(ids) < 2 || len(p.vehicles) < warmFrom {
		return
	}
	var vehicles [WarmMax]*vehicle
	n := 0
	for _, id := range ids[:min(len(ids), WarmMax)] {
		if v, known := p.vehicles[string(id)]; known {
			vehicles[n] = v
			n++
		}
	}
	touched := p.touched
	for _, v := range vehicles[:n] {
		lines := unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
		for at := 0; at < len(lines); at += cacheLine {
			touched += uint64(lines[at])
		}
	}
	for _, v := range vehicles[:n] {
		if v.window.len() > 0 {
			touched += uint64(v.window.at(0).DeviceTimeMS) + uint64(v.window.newest().DeviceTimeMS)
		}
		if at := int(v.memory.oldest); at < len(v.memory.entries) {
			touched += v.memory.entries[at]
		}
		if len(v.sessions) > 0 {
			touched += v.sessions[0].id
		}
	}
	p.touched = touched
}
