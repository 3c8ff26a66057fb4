package wire

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/starling-fleet/starling/schemas/protoappend"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// mergeOutcomes takes the current field if it is one that says what became of the
// report's fixes.
func (t *Track) mergeOutcomes(s *scanner, points bool) (err error) {
	switch s.tag {
	case 14<<3 | typeFixed64:
		t.SessionID = s.num
	case 15<<3 | typeVarint:
		t.Sequence = int64(s.num)
	case 16<<3 | typeBytes:
		if points {
			var o *FixOutcome
			t.Outcomes, o = extend(t.Outcomes)
			*o = FixOutcome{}
			err = o.merge(s.data)
		}
	case 17<<3 | typeBytes, 17<<3 | typeVarint:
		if points {
			t.LateRules, err = mergeRules(t.LateRules, s)
		}
	case 18<<3 | typeBytes, 18<<3 | typeVarint:
		if points {
			t.SetAsideRules, err = mergeRules(t.SetAsideRules, s)
		}
	case 19<<3 | typeVarint:
		t.ErasedUntilMS = int64(s.num)
	}
	return err
}

func (o *FixOutcome) append(b []byte) []byte {
	b = protoappend.Varint(b, 1, uint64(int64(o.Rule)))
	b, start := protoappend.Open(b, 2)
	return protoappend.Close(o.Fix.append(b), start)
}

func (o *FixOutcome) merge(b []byte) error {
	s := scanner{rest: b}
	for s.next() {
		switch s.tag {
		case 1<<3 | typeVarint:
			o.Rule = starlingv1.OutcomeRule(int32(s.num))
		case 2<<3 | typeBytes:
			s.invalid(o.Fix.merge(s.data))
		}
	}
	return s.err
}

// appendRules writes a packed repeated enum.
func appendRules(b []byte, field protoappend.Number, rules []starlingv1.OutcomeRule) []byte {
	if len(rules) == 0 {
		return b
	}
	b, start := protoappend.Open(b, field)
	for _, r := range rules {
		b = protowire.AppendVarint(b, uint64(int64(r)))
	}
	return protoappend.Close(b, start)
}

// mergeRules takes the current field of a repeated enum, which may be packed or not.
func mergeRules(rules []starlingv1.OutcomeRule, s *scanner) ([]starlingv1.OutcomeRule, error) {
	if s.tag&7 == typeVarint {
		return append(rules, starlingv1.OutcomeRule(int32(s.num))), nil
	}
	for b := s.data; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return rules, protowire.ParseError(n)
		}
		rules, b = append(rules, starlingv1.OutcomeRule(int32(v))), b[n:]
	}
	return rules, nil
}

func outcomesFromProto(ms []*starlingv1.FixOutcome) (out []FixOutcome) {
	for _, m := range ms {
		out = append(out, FixOutcome{m.GetRule(), FixFromProto(m.GetFix())})
	}
	return out
}

func outcomesToProto(outcomes []FixOutcome) (ms []*starlingv1.FixOutcome) {
	for i := range outcomes {
		ms = append(ms, &starlingv1.FixOutcome{Rule: outcomes[i].Rule, Fix: outcomes[i].Fix.ToProto()})
	}
	return ms
}
