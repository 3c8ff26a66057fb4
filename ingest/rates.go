package ingest

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	"github.com/starling-fleet/starling/internal/auth"
	meters "github.com/starling-fleet/starling/internal/budget"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Keys whose use is remembered. Beyond these, those that have used least are
// forgotten first.
const (
	ratedVehicles  = 200_000
	ratedCallers   = 50_000
	ratedAddresses = 50_000
)

// rated is one kind of who is held to rates: vehicles, callers or addresses.
type rated struct {
	kind           string // in statuses and settings
	reports, fixes meters.Rate
	// by are meters of reports and of fixes; nil when there are no limits.
	by *meters.Meters
}

func newRated(kind string, most int, reportsPerSec, fixesPerSec float64, burst time.Duration) rated {
	r := rated{kind: kind, reports: meters.Rate{PerSecond: reportsPerSec, Burst: burst}, fixes: meters.Rate{PerSecond: fixesPerSec, Burst: burst}}
	if reportsPerSec > 0 || fixesPerSec > 0 {
		r.by = meters.NewMeters(most)
	}
	return r
}

// of returns what one of them has used; nil is held to nothing.
func (r *rated) of(key string) *meters.Pair {
	if r.by == nil || key == "" {
		return nil
	}
	return r.by.Of(key)
}

// take uses one report with so many fixes.
func (r *rated) take(u *meters.Pair, fixes int, now time.Duration) error {
	if u == nil {
		return nil
	}
	if wait, ok := u.First.Take(1, r.reports, now); !ok {
		return r.exceeded("reports", r.reports, wait)
	}
	if wait, ok := u.Second.Take(float64(fixes), r.fixes, now); !ok {
		return r.exceeded("fixes", r.fixes, wait)
	}
	return nil
}

func (r *rated) exceeded(units string, rate meters.Rate, wait time.Duration) error {
	setting := fmt.Sprintf("ingest.limits.%s_%s_per_s", r.kind, units)
	text := fmt.Sprintf("more than %g %s a second for longer than %s", rate.PerSecond, units, rate.Burst)
	return rpcstatus.Error(codes.ResourceExhausted,
		rpcstatus.Reason{Domain: errorDomain, Name: reasonRateExceeded, Metadata: map[string]string{"of": r.kind, "units": units, "setting": setting}},
		"one "+r.kind+" sends "+text+" ("+setting+")", rpcstatus.RetryAfter(wait),
		&errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{{Subject: r.kind, Description: text}}})
}

// rates hold who reports to what it may.
type rates struct{ vehicle, caller, address rated }

func newRates(l *LimitsConfig) *rates {
	return &rates{
		vehicle: newRated("vehicle", ratedVehicles, l.VehicleReportsPerSec, l.VehicleFixesPerSec, l.RateBurst),
		caller:  newRated("caller", ratedCallers, l.CallerReportsPerSec, l.CallerFixesPerSec, l.RateBurst),
		address: newRated("address", ratedAddresses, l.AddressReportsPerSec, l.AddressFixesPerSec, l.RateBurst),
	}
}

// sender is what counts for one stream or call. It looks up once who calls, and
// again which vehicle it is when that changes.
type sender struct {
	rates           *rates
	caller, address *meters.Pair
	vehicle         *meters.Pair
	vehicleID       string
}

func (s *Server) sender(ctx context.Context) sender {
	out := sender{rates: s.rates, address: s.rates.address.of(auth.Address(ctx))}
	// In development mode there is one caller, whoever calls.
	if c := auth.CallerOf(ctx); c.Named() {
		out.caller = s.rates.caller.of(c.Principal())
	}
	return out
}

// take uses one report, or returns the status of a rate that is exceeded.
func (u *sender) take(vehicleID string, fixes int, now time.Duration) error {
	if vehicleID != u.vehicleID {
		u.vehicle, u.vehicleID = u.rates.vehicle.of(vehicleID), vehicleID
	}
	if err := u.rates.vehicle.take(u.vehicle, fixes, now); err != nil {
		return err
	}
	if err := u.rates.caller.take(u.caller, fixes, now); err != nil {
		return err
	}
	return u.rates.address.take(u.address, fixes, now)
}

// hold holds a report to the rates of who sends it.
func (s *Server) hold(u *sender, vehicleID string, fixes int, now time.Duration) error {
	err := u.take(vehicleID, fixes, now)
	if err != nil {
		s.metrics.reportsRejected[rejectedRate].Inc()
	}
	return err
}

// fixCost is the CPU time of a fix of a unary call: decoding, checking and encoding
// it, as BenchmarkSendReport measures it, rounded up.
const fixCost = 1500 * time.Nanosecond

// Cost estimates the CPU time of a call, for rpcserver.Role. Streams are held to
// rates instead: what they cost comes report by report.
func Cost(req, answer any) time.Duration {
	r, ok := req.(*starlingv1.SendReportRequest)
	if !ok || answer != nil {
		return 0
	}
	return time.Duration(len(r.GetReport().GetFixes())) * fixCost
}
