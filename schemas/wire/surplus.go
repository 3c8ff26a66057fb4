package wire

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// keptFixes is how many fixes of a report are decoded: one more than any server
// takes, so that a report that has more is refused for it, and not dear to refuse.
const keptFixes = limits.MaxFixesPerReport + 1

// withoutSurplusFixes returns an encoded StreamReportsRequest or SendReportRequest
// with at most most fixes, the first ones; b itself if it has no more, or is
// malformed before it has.
func withoutSurplusFixes(b []byte, most int) []byte {
	const leastFixBytes = 2
	if len(b) < leastFixBytes*most {
		return b
	}
	left := most
	var out []byte
	surplus := false
	for s := (scanner{rest: b}); ; {
		from := s.rest
		if !s.next() {
			if s.err != nil {
				return b
			}
			break
		}
		if s.tag != 1<<3|typeBytes {
			out = append(out, from[:len(from)-len(s.rest)]...)
			continue
		}
		report, more, ok := firstFixes(s.data, &left)
		if !ok {
			return b
		}
		surplus = surplus || more
		out = protowire.AppendBytes(protowire.AppendTag(out, 1, protowire.BytesType), report)
	}
	if !surplus {
		return b
	}
	return out
}

// firstFixes returns an encoded report with as many of its fixes as are left.
func firstFixes(b []byte, left *int) (report []byte, surplus, ok bool) {
	s := scanner{rest: b}
	kept := 0 // bytes at the beginning that are whole
	for {
		from := s.rest
		if !s.next() {
			break
		}
		if s.tag == 4<<3|typeBytes {
			if *left == 0 {
				if !surplus {
					report, surplus = append(report, b[:kept]...), true
				}
				continue
			}
			*left--
		}
		if surplus {
			report = append(report, from[:len(from)-len(s.rest)]...)
		}
		kept = len(b) - len(s.rest)
	}
	if !surplus {
		report = b
	}
	// What is malformed behind the surplus is refused for the surplus.
	return report, surplus, s.err == nil || surplus
}

// UnmarshalReceived is Unmarshal of what a stranger has sent: it decodes no more
// fixes than one above limits.MaxFixesPerReport.
func (r *StreamRequest) UnmarshalReceived(b []byte) error {
	return r.Unmarshal(withoutSurplusFixes(b, keptFixes))
}

// isReport reports whether v is a message whose report a stranger has sent.
func isReport(v any) bool {
	_, is := v.(*starlingv1.SendReportRequest)
	return is
}
