package step

import (
	"crypto/sha256"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// vehicle is everything that is known of one vehicle.
type vehicle struct {
	id string
	track
	sessions     sessions
	availability starlingv1.Availability
	// attributes is nil when none were reported. What it points to never
	// changes, so views may share it.
	attributes *wire.Attributes
	// availabilitySeq and attributesSeq are the sequences in the newest session
	// that last changed them.
	availabilitySeq, attributesSeq int64
	counts                         wire.FixCounts
	// seenMS and refreshedMS are the stream times at which the vehicle last
	// reported and its view was last published.
	seenMS, refreshedMS int64
	behind              behind

	// What follows is not state: it can be dropped without changing an answer.
	cell      h3.Cursor
	timerSlot int32 // index in the partition's timers
	dirty     bool  // changed since the last snapshot
}

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
	// streamMS is the partition's stream time: the largest append time so far.
	streamMS int64
	// offset is the last record that was stepped, -1 for none.
	offset   int64
	vehicles map[string]*vehicle
	timers   timers

	// changed and forgotten are what the next snapshot has to write.
	changed   []*vehicle
	forgotten []string

	// Scratch of one step.
	location wire.Location
	track    wire.Track
	sorted   []wire.Fix
	accepted []wire.Fix
	undo     undo
	rebased  bool
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
// epoch: the largest append time so far.
func (p *Partition) StreamTimeMS() int64 { return p.streamMS }

// Vehicles is how many vehicles the partition knows.
func (p *Partition) Vehicles() int { return len(p.vehicles) }

// TimersPending returns true if expired timers wait for the next record, because
// there were too many for the last one.
func (p *Partition) TimersPending() bool {
	at, _, ok := p.timers.first()
	return ok && at <= p.streamMS
}

// undo is what a vehicle was before the step, in case the step panics.
type undo struct {
	vehicle vehicle
	window  []wire.Fix
}

func (u *undo) save(v *vehicle) {
	u.vehicle = *v
	u.window = append(u.window[:0], v.window...)
}

func (u *undo) restore(v *vehicle) {
	window := append(u.vehicle.window[:0], u.window...)
	*v = u.vehicle
	v.window = window
}

// view fills what readers see of the vehicle.
func (p *Partition) view(v *vehicle, out *wire.View) {
	*out = wire.View{
		VehicleID:    v.id,
		DeviceTimeMS: v.newestMS,
		SeenTimeMS:   v.seenMS,
		Estimate:     v.last,
		Availability: v.availability,
		Counts:       v.counts,
	}
	if v.newestMS > 0 {
		cell, err := v.cell.Cell(v.last.LatDeg, v.last.LonDeg, p.settings.H3Resolution)
		if err != nil {
			// The step panics, which makes the record a poisoned one: a filter
			// that answers what is no position must not be published.
			panic(err)
		}
		out.Cell = uint64(cell)
	}
	if v.attributes != nil {
		out.HasAttributes = true
		out.Attributes = *v.attributes
	}
}
