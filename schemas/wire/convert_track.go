package wire

import "github.com/starling-fleet/starling/schemas/starlingv1"

// FixCountsFromProto converts counts.
func FixCountsFromProto(m *starlingv1.FixCounts) FixCounts {
	return FixCounts{
		Accepted: m.GetAccepted(), Duplicate: m.GetDuplicate(),
		Conflict: m.GetConflict(), Late: m.GetLate(), SetAside: m.GetSetAside(), Refused: m.GetRefused(),
	}
}

// ToProto converts counts; counts that are all zero become nil, as they are
// encoded.
func (c FixCounts) ToProto() *starlingv1.FixCounts {
	if c == (FixCounts{}) {
		return nil
	}
	return &starlingv1.FixCounts{
		Accepted: c.Accepted, Duplicate: c.Duplicate, Conflict: c.Conflict, Late: c.Late, SetAside: c.SetAside, Refused: c.Refused,
	}
}

// ViewFromProto converts a vehicle's view.
func ViewFromProto(m *starlingv1.VehicleView) (v View) {
	if m == nil {
		return v
	}
	v = View{
		VehicleID:    m.VehicleId,
		DeviceTimeMS: m.DeviceTimeMs,
		SeenTimeMS:   m.SeenTimeMs,
		Estimate: Estimate{
			LatDeg: m.Latitude, LonDeg: m.Longitude,
			VarEastM2: m.VarEastM2, CovEastNorthM2: m.CovEastNorthM2, VarNorthM2: m.VarNorthM2,
			Verdict: m.Verdict,
		},
		Cell:                m.H3Cell,
		Availability:        m.Availability,
		Counts:              FixCountsFromProto(m.FixCounts),
		DerivedAvailability: m.DerivedAvailability,
		Dispatchable:        m.Dispatchable,
		Conflicting:         m.Conflicting,
		DeviceClockAheadMS:  m.DeviceClockAheadMs,
		OdometerM:           m.OdometerM,
		Diagnosis:           DiagnosisFromProto(m.Diagnosis),
		Reservation:         ReservationFromProto(m.Reservation),
	}
	v.DisplayLatDeg, v.DisplayLonDeg = m.DisplayLatitude, m.DisplayLongitude
	v.SpeedMPS, v.HasSpeed = deref(m.SpeedMps)
	v.HeadingDeg, v.HasHeading = deref(m.HeadingDeg)
	v.Attributes, v.HasAttributes = AttributesFromProto(m.Attributes)
	return v
}

// ToProto converts a vehicle's view.
func (v *View) ToProto() *starlingv1.VehicleView {
	return &starlingv1.VehicleView{
		VehicleId:      v.VehicleID,
		DeviceTimeMs:   v.DeviceTimeMS,
		SeenTimeMs:     v.SeenTimeMS,
		Latitude:       v.LatDeg,
		Longitude:      v.LonDeg,
		SpeedMps:       pointerIf(v.HasSpeed, v.SpeedMPS),
		HeadingDeg:     pointerIf(v.HasHeading, v.HeadingDeg),
		VarEastM2:      v.VarEastM2,
		CovEastNorthM2: v.CovEastNorthM2,
		VarNorthM2:     v.VarNorthM2,
		H3Cell:         v.Cell,
		Availability:   v.Availability,
		Attributes:     attributesToProto(v.HasAttributes, &v.Attributes),
		FixCounts:      v.Counts.ToProto(),
		Verdict:        v.Verdict,

		DerivedAvailability: v.DerivedAvailability,
		Dispatchable:        v.Dispatchable,
		Conflicting:         v.Conflicting,
		DeviceClockAheadMs:  v.DeviceClockAheadMS,
		DisplayLatitude:     v.DisplayLatDeg,
		DisplayLongitude:    v.DisplayLonDeg,
		OdometerM:           v.OdometerM,
		Diagnosis:           v.Diagnosis.ToProto(),
		Reservation:         v.Reservation.ToProto(),
	}
}

// DiagnosisFromProto converts a diagnosis.
func DiagnosisFromProto(m *starlingv1.DeviceDiagnosis) (d Diagnosis) {
	if m == nil {
		return d
	}
	d = Diagnosis{BiasM: m.BiasM, OutlierShare: m.OutlierShare}
	d.AccuracyScale, d.HasAccuracyScale = deref(m.AccuracyScale)
	d.VelocityCredibility, d.HasVelocityCredibility = deref(m.VelocityCredibility)
	return d
}

// ToProto converts a diagnosis; one that is all zero becomes nil, as it is
// encoded.
func (d Diagnosis) ToProto() *starlingv1.DeviceDiagnosis {
	if d == (Diagnosis{}) {
		return nil
	}
	return &starlingv1.DeviceDiagnosis{
		AccuracyScale:       pointerIf(d.HasAccuracyScale, d.AccuracyScale),
		VelocityCredibility: pointerIf(d.HasVelocityCredibility, d.VelocityCredibility),
		BiasM:               d.BiasM,
		OutlierShare:        d.OutlierShare,
	}
}

// TrackPointFromProto converts a point.
func TrackPointFromProto(m *starlingv1.TrackPoint) (p TrackPoint) {
	if m == nil {
		return p
	}
	p = TrackPoint{
		Fix: FixFromProto(m.Fix),
		Estimate: Estimate{
			LatDeg: m.Latitude, LonDeg: m.Longitude,
			VarEastM2: m.VarEastM2, CovEastNorthM2: m.CovEastNorthM2, VarNorthM2: m.VarNorthM2,
			Verdict: m.Verdict,
		},
		NormalisedDistance: m.NormalisedDistance,
	}
	p.SpeedMPS, p.HasSpeed = deref(m.SpeedMps)
	p.HeadingDeg, p.HasHeading = deref(m.HeadingDeg)
	p.DisplayLatDeg, p.DisplayLonDeg = m.DisplayLatitude, m.DisplayLongitude
	return p
}

// ToProto converts a point.
func (p *TrackPoint) ToProto() *starlingv1.TrackPoint {
	return &starlingv1.TrackPoint{
		Fix:                p.Fix.ToProto(),
		Latitude:           p.LatDeg,
		Longitude:          p.LonDeg,
		SpeedMps:           pointerIf(p.HasSpeed, p.SpeedMPS),
		HeadingDeg:         pointerIf(p.HasHeading, p.HeadingDeg),
		VarEastM2:          p.VarEastM2,
		CovEastNorthM2:     p.CovEastNorthM2,
		VarNorthM2:         p.VarNorthM2,
		Verdict:            p.Verdict,
		NormalisedDistance: p.NormalisedDistance,
		DisplayLatitude:    p.DisplayLatDeg,
		DisplayLongitude:   p.DisplayLonDeg,
	}
}

func pointsFromProto(ms []*starlingv1.TrackPoint) (points []TrackPoint) {
	for _, m := range ms {
		points = append(points, TrackPointFromProto(m))
	}
	return points
}

func pointsToProto(points []TrackPoint) (ms []*starlingv1.TrackPoint) {
	for i := range points {
		ms = append(ms, points[i].ToProto())
	}
	return ms
}

// TrackFromProto converts a record of `tracks`.
func TrackFromProto(m *starlingv1.TrackRecord) (t Track) {
	if m == nil {
		return t
	}
	t = Track{
		Epoch: m.Epoch, SourceOffset: m.SourceOffset, PreviousSourceOffset: m.PreviousSourceOffset,
		ClockMS:     m.ClockMs,
		Counts:      FixCountsFromProto(m.FixCounts),
		HasLive:     m.Live != nil,
		Live:        ViewFromProto(m.Live),
		Points:      pointsFromProto(m.Points),
		FinalPoints: pointsFromProto(m.FinalPoints),
		LateFixes:   fixesFromProto(m.LateFixes),

		SetAsideFixes: fixesFromProto(m.SetAsideFixes),
		AppendTimeMS:  m.AppendTimeMs,
		Refusal:       m.Refusal,
		SessionID:     m.SessionId,
		Sequence:      m.Sequence,
		Outcomes:      outcomesFromProto(m.Outcomes),
		LateRules:     m.LateRules,
		SetAsideRules: m.SetAsideRules,
		ErasedUntilMS: m.ErasedUntilMs,
	}
	for _, d := range m.Dues {
		t.Fired = append(t.Fired, Fired{
			VehicleID: d.VehicleId, HasLive: d.Live != nil, Live: ViewFromProto(d.Live),
			FinalPoints: pointsFromProto(d.FinalPoints), Forgotten: d.Forgotten,
		})
	}
	return t
}

// ToProto converts a record of `tracks`.
func (t *Track) ToProto() *starlingv1.TrackRecord {
	m := &starlingv1.TrackRecord{
		Epoch: t.Epoch, SourceOffset: t.SourceOffset, PreviousSourceOffset: t.PreviousSourceOffset,
		ClockMs:     t.ClockMS,
		FixCounts:   t.Counts.ToProto(),
		Points:      pointsToProto(t.Points),
		FinalPoints: pointsToProto(t.FinalPoints),
		LateFixes:   fixesToProto(t.LateFixes),

		SetAsideFixes: fixesToProto(t.SetAsideFixes),
		AppendTimeMs:  t.AppendTimeMS,
		Refusal:       t.Refusal,
		SessionId:     t.SessionID,
		Sequence:      t.Sequence,
		Outcomes:      outcomesToProto(t.Outcomes),
		LateRules:     t.LateRules,
		SetAsideRules: t.SetAsideRules,
		ErasedUntilMs: t.ErasedUntilMS,
	}
	if t.HasLive {
		m.Live = t.Live.ToProto()
	}
	for i := range t.Fired {
		d := &t.Fired[i]
		due := &starlingv1.VehicleDue{VehicleId: d.VehicleID, FinalPoints: pointsToProto(d.FinalPoints), Forgotten: d.Forgotten}
		if d.HasLive {
			due.Live = d.Live.ToProto()
		}
		m.Dues = append(m.Dues, due)
	}
	return m
}
