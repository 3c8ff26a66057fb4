package ingest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/ingest"
	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// exceeded asserts that a rate was exceeded, of whom, and that the time to wait is
// stated.
func exceeded(t *testing.T, err error, of, setting string) time.Duration {
	t.Helper()
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
	require.Equal(t, "RATE_EXCEEDED", rpcstatus.ReasonOf(err))
	var wait time.Duration
	quota := false
	for _, detail := range status.Convert(err).Details() {
		switch d := detail.(type) {
		case *errdetails.RetryInfo:
			wait = d.GetRetryDelay().AsDuration()
		case *errdetails.QuotaFailure:
			quota = d.GetViolations()[0].GetSubject() == of
		case *errdetails.ErrorInfo:
			require.Equal(t, of, d.GetMetadata()["of"])
			require.Equal(t, setting, d.GetMetadata()["setting"])
		}
	}
	require.True(t, quota, "%v", err)
	require.Positive(t, wait)
	return wait
}

// A vehicle may send a backlog at once and its rate from then on, whichever streams
// and calls it uses; other vehicles are none of its business. What was sent before is
// acknowledged.
func TestVehiclesAreHeldToRates(t *testing.T) {
	log := &fakeLog{}
	d := open(t, log, func(c *ingest.Config) {
		c.Limits.VehicleFixesPerSec, c.Limits.VehicleReportsPerSec, c.Limits.RateBurst = 10, 20, 3*time.Second
	})
	first := d.stream(t)
	send(t, first, report(1, 20))
	until(t, first, 1)
	second := d.stream(t)
	send(t, second, report(2, 10))
	until(t, second, 1)
	send(t, second, report(3, 1))
	_, err := second.Recv()
	wait := exceeded(t, err, "vehicle", "ingest.limits.vehicle_fixes_per_s")
	send(t, first, report(3, 1))
	_, err = first.Recv()
	exceeded(t, err, "vehicle", "ingest.limits.vehicle_fixes_per_s")
	require.Equal(t, 2.0, d.metric(t, "starling_ingest_reports_rejected_total", "rule", "rate_exceeded"))

	other := report(1, 1)
	other.VehicleId = "w"
	_, err = d.client.SendReport(t.Context(), &starlingv1.SendReportRequest{Report: other})
	require.NoError(t, err)

	d.elapsed.Add(int64(wait + time.Second))
	_, err = d.client.SendReport(t.Context(), &starlingv1.SendReportRequest{Report: report(3, 11)})
	require.NoError(t, err)
	_, err = d.client.SendReport(t.Context(), &starlingv1.SendReportRequest{Report: report(4, 1)})
	exceeded(t, err, "vehicle", "ingest.limits.vehicle_fixes_per_s")

	d.elapsed.Add(int64(time.Hour))
	for i := range 60 { // of no fixes
		r := report(int64(10+i), 0)
		r.Availability = starlingv1.Availability_AVAILABILITY_FREE
		_, err = d.client.SendReport(t.Context(), &starlingv1.SendReportRequest{Report: r})
		require.NoError(t, err, "%d", i)
	}
	_, err = d.client.SendReport(t.Context(), &starlingv1.SendReportRequest{Report: report(400, 0)})
	exceeded(t, err, "vehicle", "ingest.limits.vehicle_reports_per_s")
}

// Callers and addresses are held to rates over all of their vehicles; in development
// mode callers have no names.
func TestCallersAndAddressesAreHeldToRates(t *testing.T) {
	server := func(change func(*ingest.LimitsConfig)) *endpoint {
		return open(t, &fakeLog{}, func(c *ingest.Config) {
			c.Limits.RateBurst = time.Second
			change(&c.Limits)
		})
	}
	by := func(subject string) context.Context {
		return auth.WithCaller(context.Background(), &auth.Caller{Issuer: "us", Subject: subject, Scopes: auth.Report, Vehicle: "*"})
	}
	n := int64(0)
	call := func(d *endpoint, ctx context.Context) error {
		n++
		r := report(1, 1)
		r.VehicleId = fmt.Sprint("v", n)
		_, err := d.server.SendReport(ctx, &starlingv1.SendReportRequest{Report: r})
		return err
	}
	d := server(func(l *ingest.LimitsConfig) { l.CallerReportsPerSec = 5 })
	for range 5 {
		require.NoError(t, call(d, by("ann")))
	}
	exceeded(t, call(d, by("ann")), "caller", "ingest.limits.caller_reports_per_s")
	require.NoError(t, call(d, by("bob")))
	for range 20 { // over the connection everybody is let in
		_, err := d.client.SendReport(t.Context(), &starlingv1.SendReportRequest{Report: report(1, 1)})
		require.NoError(t, err)
	}

	d = server(func(l *ingest.LimitsConfig) { l.CallerFixesPerSec = 5 })
	for range 5 {
		require.NoError(t, call(d, by("ann")))
	}
	exceeded(t, call(d, by("ann")), "caller", "ingest.limits.caller_fixes_per_s")

	d = server(func(l *ingest.LimitsConfig) { l.AddressFixesPerSec = 5 })
	for range 5 {
		_, err := d.client.SendReport(t.Context(), &starlingv1.SendReportRequest{Report: report(1, 1)})
		require.NoError(t, err)
	}
	s := d.stream(t)
	send(t, s, report(2, 1))
	_, err := s.Recv()
	exceeded(t, err, "address", "ingest.limits.address_fixes_per_s")
	d.elapsed.Add(int64(time.Second))
	_, err = d.client.SendReport(t.Context(), &starlingv1.SendReportRequest{Report: report(2, 1)})
	require.NoError(t, err)
}

// A unary call is charged by its fixes, a stream is not.
func TestCostOfCalls(t *testing.T) {
	req := &starlingv1.SendReportRequest{Report: report(1, 1000)}
	require.Greater(t, ingest.Cost(req, nil), time.Millisecond, "what is charged begins there")
	require.Less(t, ingest.Cost(&starlingv1.SendReportRequest{Report: report(1, 10)}, nil), time.Millisecond)
	require.Zero(t, ingest.Cost(req, &starlingv1.SendReportResponse{}))
	require.Zero(t, ingest.Cost(&starlingv1.StreamReportsRequest{Report: report(1, 1000)}, nil))
}
