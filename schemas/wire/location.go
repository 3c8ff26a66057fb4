package wire

// Append appends the encoding of a starlingv1.LocationRecord. The report's
// VehicleID is left out: it is the record's key. A Location of KindUnknown has
// the empty encoding.
func (l *Location) Append(dst []byte) []byte {
	var start int
	switch l.Kind {
	case KindReport:
		dst, start = openMessage(dst, tagOf(1, typeBytes))
		return closeMessage(l.Report.append(dst, false), start)
	case KindTick:
		dst, start = openMessage(dst, tagOf(2, typeBytes))
		return closeMessage(dst, start)
	case KindVersionSwitch:
		dst, start = openMessage(dst, tagOf(3, typeBytes))
		return closeMessage(l.Switch.append(dst), start)
	}
	return dst
}

// AppendReportRecord appends the encoding of the starlingv1.LocationRecord that
// holds r, without its vehicle id. r.SizeBound bounds its size.
func AppendReportRecord(dst []byte, r *Report) []byte {
	dst, start := openMessage(dst, tagOf(1, typeBytes))
	return closeMessage(r.append(dst, false), start)
}

// Unmarshal decodes a starlingv1.LocationRecord. When several events are set
// the last one counts, as in every protobuf oneof.
func (l *Location) Unmarshal(b []byte) error {
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
		}
	}
	return decodeError("LocationRecord", s.err)
}

func (v *VersionSwitch) reset() {
	v.StepVersion, v.Settings, v.GoldenDigest = 0, v.Settings[:0], v.GoldenDigest[:0]
}

func (v *VersionSwitch) append(b []byte) []byte {
	b = appendVarint(b, tagOf(1, typeVarint), uint64(int64(v.StepVersion)))
	b = appendBytes(b, tagOf(2, typeBytes), v.Settings)
	return appendBytes(b, tagOf(3, typeBytes), v.GoldenDigest)
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
