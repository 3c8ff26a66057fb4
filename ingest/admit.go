package ingest

import (
	"strconv"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/schemas/wire"
)

// mayReport returns why a caller may not send report number for a vehicle, or nil.
// A report that names no vehicle is refused for that, by admit.
func (s *Server) mayReport(c *auth.Caller, vehicle string, number int64) error {
	if vehicle == "" && c.Has(auth.Report) {
		return nil
	}
	refusal := c.MayReport(vehicle)
	if refusal == nil {
		return nil
	}
	s.metrics.reportsRejected[rejectedVehicle].Inc()
	return refusal.With(metadataReportNumber, strconv.FormatInt(number, 10)).Err()
}

// admit checks a message that was read. It leaves the report's good fixes in
// it and returns the refusals of the others, or the status for a report that
// can't be taken at all.
//
// What the report is judged by is the wall clock, and where that is in doubt a
// report that breaks a rule of time is not taken.
func (s *Server) admit(v *validator, in *received, number int64, now moment) ([]wire.FixRefusal, error) {
	switch {
	case in.tooLarge:
		s.metrics.reportsRejected[rejectedTooLarge].Inc()
		return nil, invalidReport(number, rpcstatus.Violation("report", in.fault))
	case in.fault != "":
		s.metrics.reportsRejected[rejectedMalformed].Inc()
		return nil, invalidReport(number, rpcstatus.Violation("report", in.fault))
	}
	r := &in.Report
	if violations, rules := v.report(r); violations != nil {
		for _, rule := range rules {
			s.metrics.reportsRejected[rule].Inc()
		}
		return nil, invalidReport(number, violations)
	}
	s.noteClock(r, now)
	v.latestMS, v.earliestMS = s.clocks.bounds(now)
	refusals := v.fixes(r, number, nil)
	if refusals != nil {
		if err := s.timeRefusalDoubtful(refusals); err != nil {
			return nil, err
		}
	}
	for field, n := range v.absent {
		if n > 0 {
			s.metrics.fieldsAbsent[unknownRules[field].field].Add(float64(n))
		}
	}
	for i := range refusals {
		s.metrics.fixesRefused[refusals[i].Reason].Inc()
	}
	s.metrics.fixesAccepted.Add(float64(len(r.Fixes)))
	return refusals, nil
}
