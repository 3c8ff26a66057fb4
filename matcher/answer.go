package matcher

import (
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// vehicleMessage is a vehicle's message with all that it points to, in one
// piece of memory: an answer has many.
type vehicleMessage struct {
	vehicle          starlingv1.Vehicle
	deviceTime, seen timestamppb.Timestamp
	age              durationpb.Duration
	position         starlingv1.Position
	attributes       starlingv1.Attributes
	counts           starlingv1.FixCounts
	speed, heading   float32
	nearby           starlingv1.NearbyVehicle
}

// fill writes a vehicle as of nowMS and returns its message.
func (m *vehicleMessage) fill(v *liveindex.Vehicle, nowMS int64) *starlingv1.Vehicle {
	out := &m.vehicle
	out.Name = namePrefix + v.ID
	out.Availability, out.Verdict = v.Availability, v.Verdict
	setTimestamp(&m.seen, v.SeenTimeMS)
	out.SeenTime = &m.seen
	m.counts.Accepted, m.counts.Duplicate, m.counts.Conflict, m.counts.Late = v.Counts.Accepted, int64(v.Counts.Duplicate), int64(v.Counts.Conflict), int64(v.Counts.Late)
	out.FixCounts = &m.counts
	if v.Attributes != nil {
		m.attributes.Type, m.attributes.Seats, m.attributes.Tags = v.Attributes.Type, v.Attributes.Seats, v.Attributes.Tags
		out.Attributes = &m.attributes
	}
	if v.DeviceTimeMS == 0 {
		return out
	}
	setTimestamp(&m.deviceTime, v.DeviceTimeMS)
	out.DeviceTime = &m.deviceTime
	setDuration(&m.age, max(nowMS-v.DeviceTimeMS, 0))
	out.Age = &m.age
	m.position.Latitude, m.position.Longitude = v.LatDeg, v.LonDeg
	m.position.VarEastM2, m.position.CovEastNorthM2, m.position.VarNorthM2 = v.VarEastM2, v.CovEastNorthM2, v.VarNorthM2
	m.position.UncertaintyRadiusM = float32(geo.Ellipse95RadiusM(float64(v.VarEastM2), float64(v.CovEastNorthM2), float64(v.VarNorthM2)))
	out.Position = &m.position
	if v.HasSpeed {
		m.speed = v.SpeedMPS
		out.SpeedMps = &m.speed
	}
	if v.HasHeading {
		m.heading = v.HeadingDeg
		out.HeadingDeg = &m.heading
	}
	if v.Cell != 0 {
		out.H3Cell = strconv.FormatUint(v.Cell, 16)
	}
	return out
}

func setTimestamp(t *timestamppb.Timestamp, unixMS int64) {
	t.Seconds, t.Nanos = unixMS/1000, int32(unixMS%1000)*int32(time.Millisecond)
}

func setDuration(d *durationpb.Duration, ms int64) {
	d.Seconds, d.Nanos = ms/1000, int32(ms%1000)*int32(time.Millisecond)
}

// staleMessages names the partitions that are stale at nowMS.
func (m *Matcher) staleMessages(nowMS int64) []*starlingv1.StalePartition {
	var out []*starlingv1.StalePartition
	for _, s := range m.stale(nowMS) {
		msg := &starlingv1.StalePartition{Partition: s.number}
		if s.known {
			msg.Behind = durationpb.New(time.Duration(s.behindMS) * time.Millisecond)
		}
		out = append(out, msg)
	}
	return out
}
