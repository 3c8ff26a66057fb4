package ingest

import (
	"github.com/starling-fleet/starling/schemas/wire"
)

// admit checks a message that was read. It leaves the report's good fixes in
// it and returns the refusals of the others, or the status for a report that
// can't be taken at all.
func (s *Server) admit(v *validator, in *received, number int64) ([]wire.FixRefusal, error) {
	switch {
	case in.tooLarge:
		s.metrics.reportsRejected[rejectedTooLarge].Inc()
		return nil, invalidReport(number, violation("report", in.fault))
	case in.fault != "":
		s.metrics.reportsRejected[rejectedMalformed].Inc()
		return nil, invalidReport(number, violation("report", in.fault))
	}
	r := &in.Report
	if violations, rules := v.report(r); violations != nil {
		for _, rule := range rules {
			s.metrics.reportsRejected[rule].Inc()
		}
		return nil, invalidReport(number, violations)
	}
	refusals := v.fixes(r, number, nil)
	for i := range refusals {
		s.metrics.fixesRefused[refusals[i].Reason].Inc()
	}
	s.metrics.fixesAccepted.Add(float64(len(r.Fixes)))
	return refusals, nil
}
