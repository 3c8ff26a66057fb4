package query

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/matcher/follow"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// vehicleMessage is a vehicle's message with all that it points to, in one
// piece of memory: an answer has many.
type vehicleMessage struct {
	vehicle          starlingv1.Vehicle
	deviceTime, seen timestamppb.Timestamp
	age, ahead       durationpb.Duration
	position         starlingv1.Position
	attributes       starlingv1.Attributes
	counts           starlingv1.FixCounts
	speed, heading   float32
	nearby           starlingv1.NearbyVehicle
}

// VehicleMessage returns the message of one vehicle as of a moment.
func VehicleMessage(v *liveindex.Vehicle, now *follow.Moment) *starlingv1.Vehicle {
	return new(vehicleMessage).fill(v, now)
}

// wholeMessage is that of a call which returns all that is known of a vehicle.
type wholeMessage struct {
	vehicleMessage
	display            starlingv1.Place
	diagnosis          starlingv1.DeviceDiagnosis
	scale, credibility float32
	odometerM          float64
}

// fill writes a vehicle as of a moment and returns its message.
func (m *vehicleMessage) fill(v *liveindex.Vehicle, now *follow.Moment) *starlingv1.Vehicle {
	out := &m.vehicle
	out.Name = limits.VehicleNamePrefix + v.ID
	out.Availability, out.DerivedAvailability, out.Verdict = v.Availability, v.DerivedAvailability, v.Verdict
	out.Dispatchable, out.Conflicting = v.Dispatchable, v.Conflicting
	setTimestamp(&m.seen, v.SeenTimeMS)
	out.SeenTime = &m.seen
	m.counts.Accepted, m.counts.Duplicate, m.counts.Conflict = int64(v.Counts.Accepted), int64(v.Counts.Duplicate), int64(v.Counts.Conflict)
	m.counts.Late, m.counts.SetAside = int64(v.Counts.Late), int64(v.Counts.SetAside)
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
	if ms, known := now.AgeMS(v); known {
		setDuration(&m.age, ms)
		out.Age = &m.age
	}
	if v.DeviceClockAheadMS != 0 {
		setDuration(&m.ahead, v.DeviceClockAheadMS)
		out.DeviceClockAhead = &m.ahead
	}
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
		out.H3Cell = v.Cell.String()
	}
	return out
}

// fillWhole writes also what GetVehicle and ListVehicles alone return.
func (m *wholeMessage) fillWhole(v *liveindex.Vehicle, now *follow.Moment) *starlingv1.Vehicle {
	out := m.fill(v, now)
	if v.DeviceTimeMS == 0 {
		return out
	}
	m.odometerM = v.Learned.OdometerM
	out.OdometerM = &m.odometerM
	if v.Learned.DisplayLatDeg != 0 || v.Learned.DisplayLonDeg != 0 {
		m.display.Latitude, m.display.Longitude = v.Learned.DisplayLatDeg, v.Learned.DisplayLonDeg
		out.DisplayPosition = &m.display
	}
	d := &v.Learned.Diagnosis
	if *d == (liveindex.Diagnosis{}) {
		return out
	}
	m.diagnosis.BiasM, m.diagnosis.OutlierShare = d.BiasM, d.OutlierShare
	if d.AccuracyScale != 0 {
		m.scale = d.AccuracyScale
		m.diagnosis.AccuracyScale = &m.scale
	}
	if d.HasVelocity {
		m.credibility = d.VelocityCredibility
		m.diagnosis.VelocityCredibility = &m.credibility
	}
	out.Diagnosis = &m.diagnosis
	return out
}

func setTimestamp(t *timestamppb.Timestamp, unixMS int64) {
	t.Seconds, t.Nanos = unixMS/1000, int32(unixMS%1000)*int32(time.Millisecond)
}

func setDuration(d *durationpb.Duration, ms int64) {
	d.Seconds, d.Nanos = ms/1000, int32(ms%1000)*int32(time.Millisecond)
}

// StaleMessages names the partitions that are stale at nowMS.
func StaleMessages(f *follow.Follower, nowMS int64) []*starlingv1.StalePartition {
	var out []*starlingv1.StalePartition
	for _, s := range f.Stale(nowMS) {
		msg := &starlingv1.StalePartition{Partition: s.Number}
		if s.Known {
			msg.Behind = durationpb.New(time.Duration(s.BehindMS) * time.Millisecond)
		}
		out = append(out, msg)
	}
	return out
}

// pageBytes is about how large the vehicles of one message may become before it
// ends early; gRPC clients refuse 4 MiB by default.
const pageBytes = 3 << 20

// Fitting is how many of the vehicles fit into one message.
func Fitting(vs []liveindex.Vehicle) int {
	bytes := 0
	for i := range vs {
		if bytes += messageBytes(&vs[i]); bytes > pageBytes {
			return i
		}
	}
	return len(vs)
}

// VehicleMessages returns the messages of vehicles as of a moment.
func VehicleMessages(vs []liveindex.Vehicle, now *follow.Moment) []*starlingv1.Vehicle {
	messages, out := make([]vehicleMessage, len(vs)), make([]*starlingv1.Vehicle, len(vs))
	for i := range vs {
		out[i] = messages[i].fill(&vs[i], now)
	}
	return out
}

// messageBytes bounds the encoded size of a vehicle.
func messageBytes(v *liveindex.Vehicle) int {
	n := 320 + len(v.ID)
	if v.Attributes != nil {
		n += len(v.Attributes.Type)
		for _, tag := range v.Attributes.Tags {
			n += len(tag) + 2
		}
	}
	return n
}
