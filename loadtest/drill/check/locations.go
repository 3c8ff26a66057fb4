package check

import (
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Kinds of findings about `locations`.
const (
	Lost         = "acknowledged, but not in locations"
	Foreign      = "in locations, but never sent"
	Altered      = "in locations with other content than was sent"
	RefusalOff   = "a refusal that was not reported, or reported wrongly"
	Undecodable  = "a record that can't be decoded"
	WrongPlace   = "a record in another partition than its key's"
	OffsetsNotUp = "offsets that do not grow"
)

// device is what the checker knows of one vehicle.
type device struct {
	reports map[reportID]*sent
	// ahead are the device times of fixes that must be set aside.
	ahead map[int64]bool
	// taken are the device times of the fixes in locations, without copies.
	taken map[int64]struct{}
	// fixes counts all fixes in locations, copies too.
	fixes int64

	// What the records of locations make of the vehicle's description: the
	// newest device time so far, what each session has stated, and the one that
	// counts.
	newestMS     int64
	stated       map[uint64]*statement
	authority    *statement
	availability starlingv1.Availability
	attributes   *starlingv1.Attributes

	// What tracks have: the points, the late fixes and those that were set aside.
	accepted, late, setAside []publishedFix
	final                    []int64
	counts                   starlingv1.FixCounts
	view                     *starlingv1.VehicleView
}

// publishedFix is a fix as tracks have it.
type publishedFix struct {
	ms     int64
	digest uint64
}

// statement is what a session has stated last, and the sequences it did so in.
type statement struct {
	availability                   starlingv1.Availability
	attributes                     *starlingv1.Attributes
	availabilitySeq, attributesSeq int64
	counted                        bool // it has been the one that counts
}

type reportID struct {
	session  uint64
	sequence int64
}

type sent struct {
	*Report
	copies int // in locations
}

// Checker holds what is known so far. Feed it every record of `locations`, by
// offset within a partition, then every record of `tracks`, then the fleet;
// Finish adds what is off. It is for one goroutine.
type Checker struct {
	Findings Findings
	Totals   Totals
	// MayRebase reports of which vehicles the clocks are wrong in a way that may
	// make the tracker follow them at an earlier device time: their final points
	// need not be in order. nil stands for none.
	MayRebase func(vehicle string) bool

	partitions []*partition
	devices    map[string]*device
	order      []string
}

// Totals describe the size of what was checked.
type Totals struct {
	Vehicles                        int
	ReportsSent, ReportsAcked       int64
	FixesSent, FixesAcked, Refused  int64
	Locations, Ticks, CopiesStored  int64
	FixesStored, DistinctFixes      int64
	Tracks, Repeats, Skipped        int64
	Accepted, Duplicate             int64
	Conflict, Late, SetAside        int64
	FinalPoints                     int64
	UnacknowledgedStored, UntoldEnd int64
}

// partition is how far one partition has been checked.
type partition struct {
	locations []source // by place in locations
	last      int64    // newest offset of locations, -1 before the first

	position int64 // source offset of the newest track that counts
	skipped  int64 // largest source offset behind a gap, -1 if there was none
	at       int   // index in locations of the next source
	tracks   map[int64][32]byte
}

// source is one record of locations as the check of tracks needs it.
type source struct {
	offset int64
	fixes  int
	device *device // nil for ticks and the like
}

// New returns a checker of what clients were answered.
func New(byVehicle Reports, partitions int32) *Checker {
	c := &Checker{devices: make(map[string]*device, len(byVehicle))}
	for range partitions {
		c.partitions = append(c.partitions, &partition{last: -1, position: -1, skipped: -1, tracks: map[int64][32]byte{}})
	}
	for id, reports := range byVehicle {
		d := &device{reports: make(map[reportID]*sent, len(reports)), taken: map[int64]struct{}{}, stated: map[uint64]*statement{}, ahead: map[int64]bool{}}
		for _, r := range reports {
			d.reports[reportID{r.Session, r.Sequence}] = &sent{Report: r}
			c.Totals.ReportsSent++
			c.Totals.FixesSent += int64(len(r.Fixes))
			if r.Acknowledged {
				c.Totals.ReportsAcked++
				c.Totals.FixesAcked += int64(len(r.Fixes) - len(r.Refused))
				c.Totals.Refused += int64(len(r.Refused))
				c.checkRefusals(id, r)
			}
		}
		c.devices[id] = d
	}
	c.Totals.Vehicles = len(byVehicle)
	return c
}

// checkRefusals compares what was answered of a report's fixes with what must have
// been answered.
func (c *Checker) checkRefusals(vehicle string, r *Report) {
	for i := range r.Fixes {
		if want, got := r.Fixes[i].Refusable, r.Refused[int32(i)]; want != got {
			c.Findings.Add(RefusalOff, "%s session %x sequence %d fix %d: reported %v, must be %v", vehicle, r.Session, r.Sequence, i, got, want)
		}
	}
}

// Location checks the next record of a partition of `locations`.
func (c *Checker) Location(number int32, rec eventlog.Stored) {
	p := c.partitions[number]
	c.Totals.Locations++
	if rec.Offset <= p.last {
		c.Findings.Add(OffsetsNotUp, "partition %d: offset %d follows offset %d", number, rec.Offset, p.last)
	}
	p.last = rec.Offset
	src := source{offset: rec.Offset}
	var m starlingv1.LocationRecord
	if err := proto.Unmarshal(rec.Value, &m); err != nil {
		c.Findings.Add(Undecodable, "locations %d/%d: %v", number, rec.Offset, err)
	} else if report := m.GetReport(); report != nil {
		src.device, src.fixes = c.stored(number, rec, report), len(report.Fixes)
	} else {
		c.Totals.Ticks++
	}
	p.locations = append(p.locations, src)
}

// stored compares a report in the log with what was sent.
func (c *Checker) stored(number int32, rec eventlog.Stored, r *starlingv1.Report) *device {
	id := string(rec.Key)
	if eventlog.PartitionOf(rec.Key, int32(len(c.partitions))) != number {
		c.Findings.Add(WrongPlace, "vehicle %s in partition %d", id, number)
	}
	d := c.devices[id]
	if d == nil {
		c.Findings.Add(Foreign, "vehicle %q at %d/%d", id, number, rec.Offset)
		return nil
	}
	was := d.reports[reportID{r.SessionId, r.Sequence}]
	if was == nil {
		c.Findings.Add(Foreign, "%s session %x sequence %d at %d/%d", id, r.SessionId, r.Sequence, number, rec.Offset)
		return d
	}
	if was.copies++; was.copies > 1 {
		c.Totals.CopiesStored++
	} else if !was.Acknowledged {
		c.Totals.UnacknowledgedStored++
	}
	if !sameContent(was.Report, r) {
		c.Findings.Add(Altered, "%s session %x sequence %d at %d/%d", id, r.SessionId, r.Sequence, number, rec.Offset)
	}
	d.fixes += int64(len(r.Fixes))
	c.Totals.FixesStored += int64(len(r.Fixes))
	for _, f := range r.Fixes {
		d.taken[f.DeviceTimeMs] = struct{}{}
	}
	for i := range was.Fixes {
		if was.Fixes[i].Ahead {
			d.ahead[was.Fixes[i].DeviceTimeMS] = true
		}
	}
	d.describe(was.Report, r)
	return d
}

// sameContent reports whether a stored report is the sent one without its refusable
// fixes.
func sameContent(was *Report, r *starlingv1.Report) bool {
	at := 0
	for i := range was.Fixes {
		if was.Fixes[i].Refusable != starlingv1.RefusalReason_REFUSAL_REASON_UNSPECIFIED {
			continue
		}
		if at >= len(r.Fixes) || DigestOf(r.Fixes[at]) != was.Fixes[i].Digest {
			return false
		}
		at++
	}
	return at == len(r.Fixes) && r.Availability == was.Availability && proto.Equal(r.Attributes, was.Attributes)
}

// describe follows the rule of availability and attributes for a vehicle whose
// devices do not report at the same time: a session counts from its first
// report that has a fix newer than all before, with what it has stated until
// then, and the one before it counts no more. In a session only what advances
// counts. A device reports OFFLINE, FREE or BUSY; other states of work are BUSY.
func (d *device) describe(was *Report, r *starlingv1.Report) {
	s := d.stated[r.SessionId]
	if s == nil {
		s = &statement{}
		d.stated[r.SessionId] = s
	}
	states := r.Availability != starlingv1.Availability_AVAILABILITY_UNSPECIFIED && r.Sequence > s.availabilitySeq
	if states {
		s.availability, s.availabilitySeq = r.Availability, r.Sequence
		if r.Availability != starlingv1.Availability_AVAILABILITY_OFFLINE && r.Availability != starlingv1.Availability_AVAILABILITY_FREE {
			s.availability = starlingv1.Availability_AVAILABILITY_BUSY
		}
	}
	describes := r.Attributes != nil && r.Sequence > s.attributesSeq
	if describes {
		s.attributes, s.attributesSeq = r.Attributes, r.Sequence
	}
	newestMS := d.newestMS
	for i := range was.Fixes {
		if f := &was.Fixes[i]; !f.Ahead && f.Refusable == starlingv1.RefusalReason_REFUSAL_REASON_UNSPECIFIED {
			newestMS = max(newestMS, f.DeviceTimeMS)
		}
	}
	takesOver := !s.counted && (newestMS > d.newestMS || d.newestMS == 0)
	d.newestMS = newestMS
	if takesOver {
		s.counted, d.authority = true, s
		states, describes = s.availabilitySeq > 0, s.attributes != nil
	}
	if d.authority == s && states {
		d.availability = s.availability
	}
	if d.authority == s && describes {
		d.attributes = s.attributes
	}
}

// carries reports whether a report leaves a record: it has a fix that must be taken,
// or changes something else.
func (r *Report) carries() bool {
	for i := range r.Fixes {
		if r.Fixes[i].Refusable == starlingv1.RefusalReason_REFUSAL_REASON_UNSPECIFIED {
			return true
		}
	}
	return r.Availability != starlingv1.Availability_AVAILABILITY_UNSPECIFIED || r.Attributes != nil
}
