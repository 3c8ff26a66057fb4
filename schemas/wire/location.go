package wire

import "github.com/starling-fleet/starling/schemas/protoappend"

// Append appends the encoding of a starlingv1.LocationRecord. The report's
// VehicleID is left out: it is the record's key. A Location of KindUnknown has
// the empty encoding.
func (l *Location) Append(dst []byte) []byte {
	var start int
	switch l.Kind {
	case KindReport:
		dst, start = protoappend.Open(dst, 1)
		return protoappend.Close(l.Report.append(dst, false), start)
	case KindTick:
		dst, start = protoappend.Open(dst, 2)
		return protoappend.Close(dst, start)
	case KindVersionSwitch:
		dst, start = protoappend.Open(dst, 3)
		return protoappend.Close(l.Switch.append(dst), start)
	case KindProposal:
		dst, start = protoappend.Open(dst, 4)
		return protoappend.Close(l.Proposal.append(dst), start)
	case KindRelease:
		dst, start = protoappend.Open(dst, 5)
		return protoappend.Close(l.Release.append(dst), start)
	case KindReasserted:
		dst, start = protoappend.Open(dst, 6)
		return protoappend.Close(l.Reasserted.append(dst), start)
	case KindErasure:
		dst, start = protoappend.Open(dst, 7)
		return protoappend.Close(protoappend.Varint(dst, 1, uint64(l.Erasure.UntilMS)), start)
	}
	return dst
}

// AppendReportRecord appends the encoding of the starlingv1.LocationRecord that
// holds r, without its vehicle id. r.SizeBound bounds its size.
func AppendReportRecord(dst []byte, r *Report) []byte {
	dst, start := protoappend.Open(dst, 1)
	return protoappend.Close(r.append(dst, false), start)
}

// Unmarshal decodes a starlingv1.LocationRecord. When several events are set
// the last one counts, as in every protobuf oneof.
func (l *Location) Unmarshal(b []byte) error {
	if l.Kind >= KindProposal {
		l.resetPromises() // those of the hot path leave them as they are
	}
	l.Kind = KindUnknown
	old := l.Report.reset()
	l.Switch.reset()
	s := scanner{rest: b}
	for s.next() {
		switch s.tag {
		case 1<<3 | typeBytes:
			if l.Kind != KindReport {
				l.Kind = KindReport
				l.Report.reset()
			}
			s.invalid(l.Report.merge(s.data, &old))
		case 2<<3 | typeBytes:
			l.Kind = KindTick
			s.invalid(skim(s.data))
		case 3<<3 | typeBytes:
			if l.Kind != KindVersionSwitch {
				l.Kind = KindVersionSwitch
				l.Switch.reset()
			}
			s.invalid(l.Switch.merge(s.data))
		case 4<<3 | typeBytes, 5<<3 | typeBytes, 6<<3 | typeBytes:
			l.mergePromise(s.tag, &s)
		case 7<<3 | typeBytes:
			if l.Kind != KindErasure {
				l.Kind, l.Erasure = KindErasure, Erasure{}
			}
			s.invalid(l.Erasure.merge(s.data))
		}
	}
	return decodeError("LocationRecord", s.err)
}

// resetPromises empties what records other than reports, ticks and switches hold.
func (l *Location) resetPromises() {
	l.Proposal, l.Release, l.Reasserted, l.Erasure = Proposal{}, Release{}, Reasserted{}, Erasure{}
}

// mergePromise takes the current field, which is a record about reservations.
func (l *Location) mergePromise(tag uint64, s *scanner) {
	kinds := [...]LocationKind{KindProposal, KindRelease, KindReasserted}
	if kind := kinds[tag>>3-4]; l.Kind != kind {
		l.Kind = kind
		l.resetPromises()
	}
	switch l.Kind {
	case KindProposal:
		s.invalid(l.Proposal.merge(s.data))
	case KindRelease:
		s.invalid(l.Release.merge(s.data))
	default:
		s.invalid(l.Reasserted.merge(s.data))
	}
}

func (e *Erasure) merge(b []byte) error {
	s := scanner{rest: b}
	for s.next() {
		if s.tag == 1<<3|typeVarint {
			e.UntilMS = int64(s.num)
		}
	}
	return s.err
}

func (v *VersionSwitch) reset() {
	v.StepVersion, v.Settings, v.GoldenDigest = 0, v.Settings[:0], v.GoldenDigest[:0]
}

func (v *VersionSwitch) append(b []byte) []byte {
	b = protoappend.Varint(b, 1, uint64(int64(v.StepVersion)))
	b = protoappend.Bytes(b, 2, v.Settings)
	return protoappend.Bytes(b, 3, v.GoldenDigest)
}

func (v *VersionSwitch) merge(b []byte) error {
	s := scanner{rest: b}
	for s.next() {
		switch s.tag {
		case 1<<3 | typeVarint:
			v.StepVersion = int32(s.num)
		case 2<<3 | typeBytes:
			v.Settings = append(v.Settings[:0], s.data...)
		case 3<<3 | typeBytes:
			v.GoldenDigest = append(v.GoldenDigest[:0], s.data...)
		}
	}
	return s.err
}
