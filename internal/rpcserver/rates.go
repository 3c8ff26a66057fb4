package rpcserver

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/budget"
	"github.com/starling-fleet/starling/internal/rpcstatus"
)

// rates hold callers and addresses to so many calls a second, whatever these cost.
type rates struct {
	rider, caller, address budget.Rate
	byCaller, byAddress    *budget.Meters
	began                  time.Time
	now                    func() time.Time
}

func newRates(c *Config, now func() time.Time) *rates {
	rate := func(perSecond float64) budget.Rate { return budget.Rate{PerSecond: perSecond, Burst: c.CallBurst} }
	return &rates{
		rider: rate(c.RiderCallsPerSec), caller: rate(c.CallerCallsPerSec), address: rate(c.AddressCallsPerSec),
		byCaller: budget.NewMeters(maxPrincipals), byAddress: budget.NewMeters(maxPrincipals), began: now(), now: now,
	}
}

// take counts a call, or returns the status of one too many.
func (r *rates) take(ctx context.Context, c *auth.Caller) error {
	now := r.now().Sub(r.began)
	if c.Named() {
		rate, setting := r.caller, "caller_calls_per_s"
		if c.Restricted() {
			rate, setting = r.rider, "rider_calls_per_s"
		}
		if rate.PerSecond > 0 {
			if wait, ok := r.byCaller.Of(c.Principal()).First.Take(1, rate, now); !ok {
				return tooManyCalls("caller", setting, rate, wait)
			}
		}
	}
	// A service of ours calls for many, and is not where they are.
	if r.address.PerSecond > 0 && !c.ByService() {
		if address := auth.Address(ctx); address != "" {
			if wait, ok := r.byAddress.Of(address).First.Take(1, r.address, now); !ok {
				return tooManyCalls("address", "address_calls_per_s", r.address, wait)
			}
		}
	}
	return nil
}

func tooManyCalls(of, setting string, rate budget.Rate, wait time.Duration) error {
	setting = "server.grpc." + setting
	text := fmt.Sprintf("more than %g calls a second for longer than %s", rate.PerSecond, rate.Burst)
	return rpcstatus.Error(codes.ResourceExhausted,
		rpcstatus.Reason{Domain: errorDomain, Name: reasonTooManyCalls, Metadata: map[string]string{"of": of, "setting": setting}},
		"one "+of+" makes "+text+" ("+setting+")", rpcstatus.RetryAfter(wait),
		&errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{{Subject: of, Description: text}}})
}

// admitRate holds the caller of a call to its rates.
func (s *Server) admitRate(ctx context.Context, c *auth.Caller) error {
	err := s.rates.take(ctx, c)
	if err != nil {
		s.group.metrics.refused.WithLabelValues(s.role.Name, reasonTooManyCalls).Inc()
	}
	return err
}
