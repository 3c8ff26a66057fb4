package check

import (
	"cmp"
	"crypto/sha256"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Kinds of findings about `tracks` and the fleet.
const (
	Gap           = "a gap in tracks"
	RepeatDiffers = "a track published again with other bytes"
	NoSource      = "a track without a record of locations"
	NoTrack       = "a record of locations without a track"
	CountsOff     = "counts that do not add up"
	FixNotOnce    = "a fix that does not count exactly once"
	AheadCounts   = "a fix stamped ahead that counts"
	FinalNotOnce  = "a final point that is missing, doubled or foreign"
	FleetDiffers  = "a vehicle that the fleet serves otherwise than tracks have it"
	Availability  = "an availability or attributes other than the log's records make it"
	ReplayDiffers = "a track that differs from the undisturbed run's"
)

// Track checks the next record of a partition of `tracks`, as a reader that
// keeps what advances, drops what repeats, and passes over what follows a record
// that it has not had yet.
func (c *Checker) Track(number int32, rec eventlog.Stored) {
	p := c.partitions[number]
	var t starlingv1.TrackRecord
	if err := proto.Unmarshal(rec.Value, &t); err != nil {
		c.Findings.Add(Undecodable, "tracks %d/%d: %v", number, rec.Offset, err)
		return
	}
	digest := sha256.Sum256(rec.Value)
	if t.SourceOffset <= p.position {
		c.Totals.Repeats++
		if p.tracks[t.SourceOffset] != digest {
			c.Findings.Add(RepeatDiffers, "tracks %d/%d repeats source offset %d", number, rec.Offset, t.SourceOffset)
		}
		return
	}
	if t.PreviousSourceOffset != p.position {
		c.Totals.Skipped++
		p.skipped = max(p.skipped, t.SourceOffset)
		return
	}
	for p.at < len(p.locations) && p.locations[p.at].offset < t.SourceOffset {
		c.Findings.Add(NoTrack, "locations %d/%d", number, p.locations[p.at].offset)
		p.at++
	}
	p.position, p.tracks[t.SourceOffset] = t.SourceOffset, digest
	c.Totals.Tracks++
	if p.at == len(p.locations) || p.locations[p.at].offset != t.SourceOffset {
		c.Findings.Add(NoSource, "tracks %d/%d: source offset %d", number, rec.Offset, t.SourceOffset)
		return
	}
	src := &p.locations[p.at]
	p.at++
	c.follow(number, src, &t)
}

// follow takes in what a track did.
func (c *Checker) follow(number int32, src *source, t *starlingv1.TrackRecord) {
	n := t.FixCounts
	if sumOf(n) != int64(src.fixes) || n.GetAccepted() != int64(len(t.Points)) ||
		n.GetLate() != int64(len(t.LateFixes)) || n.GetSetAside() != int64(len(t.SetAsideFixes)) {
		c.Findings.Add(CountsOff, "source %d/%d with %d fixes: counts %v, %d points, %d late, %d set aside",
			number, src.offset, src.fixes, n, len(t.Points), len(t.LateFixes), len(t.SetAsideFixes))
	}
	for _, due := range t.Dues {
		d := c.devices[due.VehicleId]
		if d == nil {
			c.Findings.Add(Foreign, "due of %q at source %d/%d", due.VehicleId, number, src.offset)
			continue
		}
		d.close(due.FinalPoints)
		if due.Live != nil {
			d.view = due.Live
		}
	}
	d := src.device
	if d == nil {
		return
	}
	d.counts.Accepted += n.GetAccepted()
	d.counts.Duplicate += n.GetDuplicate()
	d.counts.Conflict += n.GetConflict()
	d.counts.Late += n.GetLate()
	d.counts.SetAside += n.GetSetAside()
	for _, point := range t.Points {
		d.accepted = append(d.accepted, publishedFix{point.Fix.DeviceTimeMs, DigestOf(point.Fix)})
	}
	d.late = appendPublished(d.late, t.LateFixes)
	d.setAside = appendPublished(d.setAside, t.SetAsideFixes)
	d.close(t.FinalPoints)
	d.view = t.Live
	if t.Live == nil {
		c.Findings.Add(CountsOff, "source %d/%d: the track of a report has no live view", number, src.offset)
	}
}

func appendPublished(to []publishedFix, fixes []*starlingv1.Fix) []publishedFix {
	for _, f := range fixes {
		to = append(to, publishedFix{f.DeviceTimeMs, DigestOf(f)})
	}
	return to
}

// sumOf is how many fixes are counted.
func sumOf(n *starlingv1.FixCounts) int64 {
	return n.GetAccepted() + n.GetDuplicate() + n.GetConflict() + n.GetLate() + n.GetSetAside()
}

func (d *device) close(points []*starlingv1.TrackPoint) {
	for _, p := range points {
		d.final = append(d.final, p.Fix.DeviceTimeMs)
	}
}

// Undisturbed compares one track of an undisturbed run over the same records.
func (c *Checker) Undisturbed(number int32, sourceOffset int64, value []byte) {
	p := c.partitions[number]
	want, has := p.tracks[sourceOffset]
	if has && sha256.Sum256(value) != want {
		c.Findings.Add(ReplayDiffers, "partition %d source offset %d", number, sourceOffset)
	}
}

// Finish checks what only shows in the end. The fleet is what the matcher
// served after the last report was consumed, by vehicle id.
func (c *Checker) Finish(fleet map[string]*starlingv1.Vehicle) {
	for number, p := range c.partitions {
		if p.skipped > p.position {
			c.Findings.Add(Gap, "partition %d: the reader is at source offset %d and can't get to %d", number, p.position, p.skipped)
		}
		for ; p.at < len(p.locations); p.at++ {
			// The clean stop may come between a tick and its track.
			if p.locations[p.at].device != nil {
				c.Findings.Add(NoTrack, "locations %d/%d, at the end", number, p.locations[p.at].offset)
			} else {
				c.Totals.UntoldEnd++
			}
		}
	}
	for id, d := range c.devices {
		c.order = append(c.order, id)
		c.Totals.DistinctFixes += int64(len(d.taken))
	}
	slices.Sort(c.order)
	for _, id := range c.order {
		c.finishDevice(id, c.devices[id], fleet[id])
	}
	for id := range fleet {
		if c.devices[id] == nil {
			c.Findings.Add(FleetDiffers, "%s is served but never reported", id)
		}
	}
}

func (c *Checker) finishDevice(id string, d *device, served *starlingv1.Vehicle) {
	for _, r := range d.reports {
		if r.Acknowledged && r.copies == 0 && r.carries() {
			c.Findings.Add(Lost, "%s session %x sequence %d with %d fixes", id, r.Session, r.Sequence, len(r.Fixes))
		}
	}
	c.Totals.Accepted += d.counts.Accepted
	c.Totals.Duplicate += d.counts.Duplicate
	c.Totals.Conflict += d.counts.Conflict
	c.Totals.Late += d.counts.Late
	c.Totals.SetAside += d.counts.SetAside
	c.Totals.FinalPoints += int64(len(d.final))
	if sum := sumOf(&d.counts); sum != d.fixes {
		c.Findings.Add(CountsOff, "%s: %d fixes in locations, %d counted", id, d.fixes, sum)
	}
	c.checkOnce(id, d)
	c.checkFinal(id, d)
	if d.view == nil {
		if served != nil {
			c.Findings.Add(FleetDiffers, "%s is served but was never published", id)
		}
		return
	}
	if d.view.Availability != d.availability {
		c.Findings.Add(Availability, "%s is %v, the records make it %v", id, d.view.Availability, d.availability)
	}
	if !proto.Equal(d.view.Attributes, d.attributes) {
		c.Findings.Add(Availability, "%s has the attributes %v, the records make them %v", id, d.view.Attributes, d.attributes)
	}
	if !sameCounts(d.view.FixCounts, &d.counts) {
		c.Findings.Add(CountsOff, "%s: the view counts %v, its tracks %v", id, d.view.FixCounts, &d.counts)
	}
	if why := differs(d.view, served); why != "" {
		c.Findings.Add(FleetDiffers, "%s: %s", id, why)
	}
}

// checkOnce checks that every device time in locations counts once: as a point
// or a late fix, or else as one that was set aside. Where a fix was set aside,
// another of its time may count, but never the same.
func (c *Checker) checkOnce(id string, d *device) {
	counted := map[int64]uint64{}
	for _, t := range slices.Concat(d.accepted, d.late) {
		if _, taken := d.taken[t.ms]; !taken {
			c.Findings.Add(FixNotOnce, "%s: fix %d is published but not in locations", id, t.ms)
		}
		if _, again := counted[t.ms]; again {
			c.Findings.Add(FixNotOnce, "%s: fix %d is published twice", id, t.ms)
		}
		if counted[t.ms] = t.digest; d.ahead[t.ms] {
			c.Findings.Add(AheadCounts, "%s: fix %d", id, t.ms)
		}
	}
	aside := map[publishedFix]bool{}
	asideMS := map[int64]bool{}
	for _, t := range d.setAside {
		if _, taken := d.taken[t.ms]; !taken {
			c.Findings.Add(FixNotOnce, "%s: fix %d is set aside but not in locations", id, t.ms)
		}
		if digest, counts := counted[t.ms]; counts && digest == t.digest {
			c.Findings.Add(FixNotOnce, "%s: fix %d is set aside, and counts as well", id, t.ms)
		}
		if aside[t] {
			c.Findings.Add(FixNotOnce, "%s: fix %d is set aside twice", id, t.ms)
		}
		aside[t], asideMS[t.ms] = true, true
	}
	for ms := range d.taken {
		if _, counts := counted[ms]; !counts && !asideMS[ms] {
			c.Findings.Add(FixNotOnce, "%s: fix %d is in locations and was never published", id, ms)
		}
	}
}

// checkFinal checks that the final points are the accepted fixes up to some
// device time, each once.
func (c *Checker) checkFinal(id string, d *device) {
	accepted := make([]int64, 0, len(d.accepted))
	for _, t := range d.accepted {
		accepted = append(accepted, t.ms)
	}
	slices.Sort(accepted)
	if c.MayRebase != nil && c.MayRebase(id) {
		c.checkFinalInAnyOrder(id, d, accepted)
		return
	}
	if !slices.IsSortedFunc(d.final, cmp.Compare[int64]) {
		c.Findings.Add(FinalNotOnce, "%s: final points are not in the order of device time", id)
	}
	if len(d.final) > len(accepted) || !slices.Equal(d.final, accepted[:len(d.final)]) {
		c.Findings.Add(FinalNotOnce, "%s: %d final points of %d accepted fixes are not the oldest of them", id, len(d.final), len(accepted))
	}
}

// checkFinalInAnyOrder checks that the final points are accepted fixes, each once.
func (c *Checker) checkFinalInAnyOrder(id string, d *device, accepted []int64) {
	final := slices.Clone(d.final)
	slices.Sort(final)
	for i, ms := range final {
		if _, is := slices.BinarySearch(accepted, ms); !is || i > 0 && final[i-1] == ms {
			c.Findings.Add(FinalNotOnce, "%s: the final point of %d is foreign or doubled", id, ms)
		}
	}
}

// differs returns in what the fleet's answer differs from the newest view.
func differs(v *starlingv1.VehicleView, served *starlingv1.Vehicle) string {
	if served == nil {
		return "it is not served"
	}
	position := served.GetPosition()
	switch {
	case served.GetDeviceTime().AsTime().UnixMilli() != v.DeviceTimeMs && (v.DeviceTimeMs != 0 || served.DeviceTime != nil):
		return "device time"
	case served.GetSeenTime().AsTime().UnixMilli() != v.SeenTimeMs:
		return "seen time"
	case position.GetLatitude() != v.Latitude || position.GetLongitude() != v.Longitude:
		return "position"
	case position.GetVarEastM2() != v.VarEastM2 || position.GetCovEastNorthM2() != v.CovEastNorthM2 || position.GetVarNorthM2() != v.VarNorthM2:
		return "uncertainty"
	case served.GetSpeedMps() != v.GetSpeedMps() || served.GetHeadingDeg() != v.GetHeadingDeg():
		return "speed or heading"
	case served.GetAvailability() != v.Availability:
		return "availability"
	case !proto.Equal(served.GetAttributes(), v.Attributes):
		return "attributes"
	case !sameCounts(served.GetFixCounts(), v.FixCounts):
		return "fix counts"
	case served.GetVerdict() != v.Verdict:
		return "verdict"
	}
	return ""
}

// sameCounts compares counts; none and zeros are the same.
func sameCounts(a, b *starlingv1.FixCounts) bool {
	return a.GetAccepted() == b.GetAccepted() && a.GetDuplicate() == b.GetDuplicate() && a.GetConflict() == b.GetConflict() &&
		a.GetLate() == b.GetLate() && a.GetSetAside() == b.GetSetAside()
}
