package wire

import "github.com/starling-fleet/starling/schemas/starlingv1"

// The conversions below are for the edges that speak the generated types: unary
// calls, tools and tests. They copy; nil stands for the empty message. What a
// flat struct cannot distinguish is one value: counts that are absent or zero.

func pointerIf[T any](has bool, v T) *T {
	if !has {
		return nil
	}
	return &v
}

// deref returns what p points at, and whether it is there.
func deref[T any](p *T) (v T, has bool) {
	if p != nil {
		v, has = *p, true
	}
	return v, has
}

// FixFromProto converts a fix.
func FixFromProto(m *starlingv1.Fix) (f Fix) {
	if m == nil {
		return f
	}
	f = Fix{DeviceTimeMS: m.DeviceTimeMs, LatDeg: m.Latitude, LonDeg: m.Longitude}
	set := func(dst *float32, src *float32, bit Has) {
		if src != nil {
			*dst, f.Has = *src, f.Has|bit
		}
	}
	set(&f.AccuracyM, m.AccuracyM, HasAccuracy)
	set(&f.SpeedMPS, m.SpeedMps, HasSpeed)
	set(&f.HeadingDeg, m.HeadingDeg, HasHeading)
	set(&f.AltitudeM, m.AltitudeM, HasAltitude)
	if m.Mocked != nil {
		f.Mocked, f.Has = *m.Mocked, f.Has|HasMocked
	}
	return f
}

// ToProto converts a fix.
func (f *Fix) ToProto() *starlingv1.Fix {
	return &starlingv1.Fix{
		DeviceTimeMs: f.DeviceTimeMS,
		Latitude:     f.LatDeg,
		Longitude:    f.LonDeg,
		AccuracyM:    pointerIf(f.Has&HasAccuracy != 0, f.AccuracyM),
		SpeedMps:     pointerIf(f.Has&HasSpeed != 0, f.SpeedMPS),
		HeadingDeg:   pointerIf(f.Has&HasHeading != 0, f.HeadingDeg),
		AltitudeM:    pointerIf(f.Has&HasAltitude != 0, f.AltitudeM),
		Mocked:       pointerIf(f.Has&HasMocked != 0, f.Mocked),
	}
}

func fixesFromProto(ms []*starlingv1.Fix) (fixes []Fix) {
	for _, m := range ms {
		fixes = append(fixes, FixFromProto(m))
	}
	return fixes
}

func fixesToProto(fixes []Fix) (ms []*starlingv1.Fix) {
	for i := range fixes {
		ms = append(ms, fixes[i].ToProto())
	}
	return ms
}

// AttributesFromProto converts attributes; has is false when there are none.
func AttributesFromProto(m *starlingv1.Attributes) (a Attributes, has bool) {
	if m == nil {
		return a, false
	}
	return Attributes{Type: m.Type, Seats: m.Seats, Tags: append([]string(nil), m.Tags...)}, true
}

// ToProto converts attributes.
func (a *Attributes) ToProto() *starlingv1.Attributes {
	return &starlingv1.Attributes{Type: a.Type, Seats: a.Seats, Tags: append([]string(nil), a.Tags...)}
}

func attributesToProto(has bool, a *Attributes) *starlingv1.Attributes {
	if !has {
		return nil
	}
	return a.ToProto()
}

// ReportFromProto converts a report.
func ReportFromProto(m *starlingv1.Report) (r Report) {
	r.VehicleID = m.GetVehicleId()
	r.SessionID = m.GetSessionId()
	r.Sequence = m.GetSequence()
	r.Fixes = fixesFromProto(m.GetFixes())
	r.Availability = m.GetAvailability()
	r.Attributes, r.HasAttributes = AttributesFromProto(m.GetAttributes())
	return r
}

// ToProto converts a report.
func (r *Report) ToProto() *starlingv1.Report {
	return &starlingv1.Report{
		VehicleId:    r.VehicleID,
		SessionId:    r.SessionID,
		Sequence:     r.Sequence,
		Fixes:        fixesToProto(r.Fixes),
		Availability: r.Availability,
		Attributes:   attributesToProto(r.HasAttributes, &r.Attributes),
	}
}

// StreamRequestFromProto converts a request.
func StreamRequestFromProto(m *starlingv1.StreamReportsRequest) (r StreamRequest) {
	if m.GetReport() != nil {
		r.HasReport, r.Report = true, ReportFromProto(m.Report)
	}
	return r
}

// ToProto converts a request.
func (r *StreamRequest) ToProto() *starlingv1.StreamReportsRequest {
	if !r.HasReport {
		return &starlingv1.StreamReportsRequest{}
	}
	return &starlingv1.StreamReportsRequest{Report: r.Report.ToProto()}
}

// FixRefusalFromProto converts a refusal.
func FixRefusalFromProto(m *starlingv1.FixRefusal) FixRefusal {
	return FixRefusal{
		ReportNumber: m.GetReportNumber(), Sequence: m.GetSequence(), FixIndex: m.GetFixIndex(),
		Field: m.GetField(), Reason: m.GetReason(), Description: m.GetDescription(),
	}
}

// ToProto converts a refusal.
func (f *FixRefusal) ToProto() *starlingv1.FixRefusal {
	return &starlingv1.FixRefusal{
		ReportNumber: f.ReportNumber, Sequence: f.Sequence, FixIndex: f.FixIndex,
		Field: f.Field, Reason: f.Reason, Description: f.Description,
	}
}

// AckFromProto converts an acknowledgement.
func AckFromProto(m *starlingv1.StreamReportsResponse) (a Ack) {
	a.AcknowledgedReports, a.AcknowledgedSequence = m.GetAcknowledgedReports(), m.GetAcknowledgedSequence()
	for _, f := range m.GetRefusals() {
		a.Refusals = append(a.Refusals, FixRefusalFromProto(f))
	}
	return a
}

// ToProto converts an acknowledgement.
func (a *Ack) ToProto() *starlingv1.StreamReportsResponse {
	m := &starlingv1.StreamReportsResponse{
		AcknowledgedReports: a.AcknowledgedReports, AcknowledgedSequence: a.AcknowledgedSequence,
	}
	for i := range a.Refusals {
		m.Refusals = append(m.Refusals, a.Refusals[i].ToProto())
	}
	return m
}

// LocationFromProto converts a record of `locations`.
func LocationFromProto(m *starlingv1.LocationRecord) (l Location) {
	switch event := m.GetEvent().(type) {
	case *starlingv1.LocationRecord_Report:
		l.Kind, l.Report = KindReport, ReportFromProto(event.Report)
	case *starlingv1.LocationRecord_Tick:
		l.Kind = KindTick
	case *starlingv1.LocationRecord_VersionSwitch:
		l.Kind = KindVersionSwitch
		l.Switch = VersionSwitch{
			StepVersion:  event.VersionSwitch.GetStepVersion(),
			Settings:     event.VersionSwitch.GetSettings(),
			GoldenDigest: event.VersionSwitch.GetGoldenDigest(),
		}
	case *starlingv1.LocationRecord_Proposal:
		l.Kind, l.Proposal = KindProposal, ProposalFromProto(event.Proposal)
	case *starlingv1.LocationRecord_Release:
		l.Kind, l.Release = KindRelease, ReleaseFromProto(event.Release)
	case *starlingv1.LocationRecord_Reasserted:
		l.Kind, l.Reasserted = KindReasserted, ReassertedFromProto(event.Reasserted)
	case *starlingv1.LocationRecord_Erasure:
		l.Kind, l.Erasure = KindErasure, Erasure{UntilMS: event.Erasure.GetUntilMs()}
	}
	return l
}

// ToProto converts a record of `locations`. The report keeps its vehicle id.
func (l *Location) ToProto() *starlingv1.LocationRecord {
	m := &starlingv1.LocationRecord{}
	switch l.Kind {
	case KindReport:
		m.Event = &starlingv1.LocationRecord_Report{Report: l.Report.ToProto()}
	case KindTick:
		m.Event = &starlingv1.LocationRecord_Tick{Tick: &starlingv1.Tick{}}
	case KindVersionSwitch:
		m.Event = &starlingv1.LocationRecord_VersionSwitch{VersionSwitch: &starlingv1.VersionSwitch{
			StepVersion: l.Switch.StepVersion, Settings: l.Switch.Settings, GoldenDigest: l.Switch.GoldenDigest,
		}}
	case KindProposal:
		m.Event = &starlingv1.LocationRecord_Proposal{Proposal: l.Proposal.ToProto()}
	case KindRelease:
		m.Event = &starlingv1.LocationRecord_Release{Release: l.Release.ToProto()}
	case KindReasserted:
		m.Event = &starlingv1.LocationRecord_Reasserted{Reasserted: l.Reasserted.ToProto()}
	case KindErasure:
		m.Event = &starlingv1.LocationRecord_Erasure{Erasure: &starlingv1.Erasure{UntilMs: l.Erasure.UntilMS}}
	}
	return m
}
