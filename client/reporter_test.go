package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func report(vehicle string, fixes int) *starlingv1.Report {
	r := &starlingv1.Report{VehicleId: vehicle}
	for i := range fixes {
		r.Fixes = append(r.Fixes, &starlingv1.Fix{DeviceTimeMs: int64(1 + i), Latitude: 1, Longitude: 2})
	}
	return r
}

// start runs a Reporter until the test ends and returns it with Run's error.
func start(t *testing.T, f *fakeIngest, cfg client.Config, h client.Handlers) (*client.Reporter, chan error) {
	t.Helper()
	r, err := client.NewReporter(serve(t, f), cfg, h)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	ended := make(chan struct{})
	go func() { ran <- r.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return r, ran
}

func TestEveryReportIsDeliveredInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		script := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) act {
			// Rejections have tests of their own.
			return rapid.SampledFrom([]act{actAck, actAck, actHold, actHold, actRefuse, actBreakBefore, actBreakAfter, actEnd, actBusy, actSilent}).Draw(rt, "act")
		}), 0, 120).Draw(rt, "script")
		vehicles := rapid.IntRange(1, 4).Draw(rt, "vehicles")
		perVehicle := rapid.IntRange(1, 100).Draw(rt, "reports")
		ackDelay := time.Duration(rapid.IntRange(0, 50).Draw(rt, "ackDelayMS")) * time.Millisecond
		var fault error
		synctest.Test(t, func(t *testing.T) {
			fault = deliver(t, &fakeIngest{script: script, ackDelay: ackDelay, retryDelay: 3 * time.Second}, vehicles, perVehicle)
		})
		if fault != nil {
			rt.Fatal(fault)
		}
	})
}

// deliver sends perVehicle reports for each vehicle, one goroutine a vehicle,
// and returns what the Reporter has done wrong.
func deliver(t *testing.T, f *fakeIngest, vehicles, perVehicle int) error {
	var mu sync.Mutex
	var faults []error
	acknowledged := map[reportKey]int{}
	r, ran := start(t, f, client.DefaultConfig(), client.Handlers{Acknowledged: func(got client.Receipt) {
		key := reportKey{got.VehicleID, got.SessionID, got.Sequence}
		mu.Lock()
		defer mu.Unlock()
		if acknowledged[key]++; acknowledged[key] > 1 || !f.isStored(key) {
			faults = append(faults, fmt.Errorf("%v acknowledged %d times, stored: %v", key, acknowledged[key], f.isStored(key)))
		}
	}})
	var senders sync.WaitGroup
	for v := range vehicles {
		senders.Go(func() {
			for range perVehicle {
				if err := r.Send(t.Context(), report(fmt.Sprintf("v%d", v), 1)); err != nil {
					mu.Lock()
					faults = append(faults, err)
					mu.Unlock()
				}
			}
		})
	}
	senders.Wait()
	if err := r.Close(t.Context()); err != nil {
		return err
	}
	if err := <-ran; err != nil {
		return err
	}
	faults = append(faults, f.fault, f.checkLog(vehicles*perVehicle, acknowledged))
	stats := r.Stats()
	if stats.PendingReports != 0 || stats.AcknowledgedReports != int64(vehicles*perVehicle) {
		faults = append(faults, fmt.Errorf("stats do not add up: %+v", stats))
	}
	return errors.Join(faults...)
}

// checkLog holds the log against what was sent: each report at least once, the
// first copies in order, and no more copies than the Reporter has reason for.
func (f *fakeIngest) checkLog(want int, acknowledged map[reportKey]int) error {
	if len(acknowledged) != want {
		return fmt.Errorf("%d of %d reports acknowledged", len(acknowledged), want)
	}
	last := map[string]int64{}
	seen := map[reportKey]bool{}
	for _, key := range f.log {
		if seen[key] {
			continue
		}
		seen[key] = true
		if key.sequence != last[key.vehicle]+1 {
			return fmt.Errorf("vehicle %s: report %d was stored after %d", key.vehicle, key.sequence, last[key.vehicle])
		}
		last[key.vehicle] = key.sequence
	}
	if len(seen) != want {
		return fmt.Errorf("%d of %d reports stored", len(seen), want)
	}
	return nil
}

func TestRetryInfoIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeIngest{script: []act{actBusy}, retryDelay: 40 * time.Second}
		var announced time.Duration
		r, _ := start(t, f, client.DefaultConfig(), client.Handlers{Broken: func(_ error, in time.Duration) { announced = in }})
		require.NoError(t, r.Send(t.Context(), report("v", 1)))
		require.NoError(t, r.Close(t.Context()))
		require.Len(t, f.arrivals, 2)
		require.GreaterOrEqual(t, f.arrivals[1].Sub(f.arrivals[0]), 40*time.Second)
		require.Less(t, f.arrivals[1].Sub(f.arrivals[0]), 51*time.Second)
		require.GreaterOrEqual(t, announced, 40*time.Second)
		require.EqualValues(t, 1, r.Stats().ResentReports)
	})
}

// A reporter that waits reports it after 2 seconds and then every 10, with what is
// known of why.
func TestWaitingIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeIngest{script: []act{actBreakBefore, actSilent}}
		var waited []time.Duration
		var whys []error
		begun := time.Now()
		r, ran := start(t, f, client.DefaultConfig(), client.Handlers{Waiting: func(d time.Duration, why error) {
			waited, whys = append(waited, d), append(whys, why)
		}})
		require.NoError(t, r.Send(t.Context(), report("a", 1)))
		time.Sleep(25 * time.Second)
		synctest.Wait()
		require.Len(t, waited, 3)
		for i, want := range []time.Duration{2 * time.Second, 12 * time.Second, 22 * time.Second} {
			require.InDelta(t, want.Seconds(), waited[i].Seconds(), 0.3)
			require.Equal(t, codes.Unavailable, status.Code(whys[i]), "the stream before has broken: %v", whys[i])
		}
		closing, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, r.Close(closing))
		require.NoError(t, <-ran)
		require.Less(t, time.Since(begun), 2*time.Minute)
	})
}

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := make([]act, 12)
		for i := range script {
			script[i] = actBreakBefore
		}
		f := &fakeIngest{script: script}
		r, _ := start(t, f, client.DefaultConfig(), client.Handlers{})
		require.NoError(t, r.Send(t.Context(), report("v", 1)))
		require.NoError(t, r.Close(t.Context()))
		require.Len(t, f.arrivals, 13)
		for i := range 12 {
			gap := f.arrivals[i+1].Sub(f.arrivals[i])
			full := min(30*time.Second, 200*time.Millisecond<<i)
			require.GreaterOrEqual(t, gap, full/2, "attempt %d", i)
			require.LessOrEqual(t, gap, full+10*time.Millisecond, "attempt %d", i)
		}
	})
}

func TestSendBlocksAtTheVehiclesBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeIngest{script: []act{actSilent}}
		cfg := client.DefaultConfig()
		cfg.AckTimeout = time.Hour
		r, _ := start(t, f, cfg, client.Handlers{})
		for range client.MaxUnacknowledged {
			require.NoError(t, r.Send(t.Context(), report("v", 1)))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, r.Send(ctx, report("v", 1)), context.DeadlineExceeded)
		require.NoError(t, r.Send(t.Context(), report("another", 1)), "one vehicle must not hold up another")
		require.ErrorContains(t, r.Close(ctx), "65 reports unacknowledged")
		require.ErrorIs(t, r.Send(t.Context(), report("third", 1)), client.ErrClosed)
	})
}

func TestSendBlocksAtTheGlobalBounds(t *testing.T) {
	for name, shrink := range map[string]func(*client.Config){
		"reports": func(c *client.Config) { c.MaxPendingReports = 3 },
		"bytes":   func(c *client.Config) { c.MaxPendingBytes = 3 * 22 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeIngest{script: []act{actSilent}}
				cfg := client.DefaultConfig()
				shrink(&cfg)
				r, _ := start(t, f, cfg, client.Handlers{})
				for i := range 3 {
					require.NoError(t, r.Send(t.Context(), report(fmt.Sprint("v", i), 1)))
				}
				begun := time.Now()
				require.NoError(t, r.Send(t.Context(), report("v4", 1)))
				require.GreaterOrEqual(t, time.Since(begun), cfg.AckTimeout, "the queue is full until the silent stream times out")
				require.NoError(t, r.Close(t.Context()))
				require.LessOrEqual(t, r.Stats().PendingBytes, cfg.MaxPendingBytes)
			})
		})
	}
}

func TestRejectedReportIsTakenOutAndNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeIngest{script: []act{actAck, actHold, actReject}}
		var rejected []*client.RejectedError
		r, _ := start(t, f, client.DefaultConfig(), client.Handlers{Rejected: func(e *client.RejectedError) { rejected = append(rejected, e) }})
		for i := range 5 {
			require.NoError(t, r.Send(t.Context(), report("v", i+1)))
		}
		require.NoError(t, r.Close(t.Context()))
		require.Len(t, rejected, 1)
		require.EqualValues(t, 3, rejected[0].Sequence)
		require.Equal(t, 3, rejected[0].Fixes)
		require.Equal(t, "v", rejected[0].VehicleID)
		require.Equal(t, codes.InvalidArgument, status.Code(rejected[0]))
		stats := r.Stats()
		require.EqualValues(t, 4, stats.AcknowledgedReports)
		require.EqualValues(t, 12, stats.AcknowledgedFixes)
		require.EqualValues(t, 1, stats.RejectedReports)
		require.Zero(t, stats.PendingReports)
	})
}

func TestFatalStatusEndsRun(t *testing.T) {
	for name, script := range map[string][]act{"named, without a handler": {actReject}, "unnamed": {actRejectUnnamed}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeIngest{script: script}
				r, ran := start(t, f, client.DefaultConfig(), client.Handlers{})
				require.NoError(t, r.Send(t.Context(), report("v", 1)))
				err := <-ran
				require.Equal(t, codes.InvalidArgument, status.Code(errors.Unwrap(err)), "%v", err)
				require.Len(t, f.arrivals, 1, "it must not try again")
				require.ErrorIs(t, r.Send(t.Context(), report("v", 1)), client.ErrStopped)
			})
		})
	}
}

func TestRefusalNamesVehicleAndSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeIngest{script: []act{actHold, actBreakAfter, actHold, actRefuse}}
		var refusals []client.Refusal
		r, _ := start(t, f, client.DefaultConfig(), client.Handlers{Refused: func(x client.Refusal) { refusals = append(refusals, x) }})
		require.NoError(t, r.Send(t.Context(), report("a", 1)))
		require.NoError(t, r.Send(t.Context(), &starlingv1.Report{VehicleId: "b", SessionId: 9, Sequence: 7, Fixes: report("b", 2).GetFixes()}))
		require.NoError(t, r.Close(t.Context()))
		require.Equal(t, []client.Refusal{{VehicleID: "b", SessionID: 9, Sequence: 7, Field: "latitude", Reason: starlingv1.RefusalReason_REFUSAL_REASON_NULL_ISLAND}}, refusals)
		require.EqualValues(t, 1, r.Stats().RefusedFixes)
	})
}

func TestImpossibleAcknowledgementForgetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeIngest{script: []act{actOveracknowledge}}
		var broken []error
		r, _ := start(t, f, client.DefaultConfig(), client.Handlers{Broken: func(err error, _ time.Duration) { broken = append(broken, err) }})
		require.NoError(t, r.Send(t.Context(), report("v", 1)))
		require.NoError(t, r.Close(t.Context()))
		require.Len(t, broken, 1)
		require.ErrorIs(t, broken[0], client.ErrProtocol)
		require.Len(t, f.log, 2, "the report was sent again")
	})
}

func TestCancelledRunNamesWhatIsPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeIngest{script: []act{actSilent}}
		r, err := client.NewReporter(serve(t, f), client.DefaultConfig(), client.Handlers{})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, r.Send(ctx, report("v", 1)))
		require.NoError(t, r.Send(ctx, report("v", 1)))
		err = r.Run(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "2 reports unacknowledged")
	})
}

func TestSendNamesTheFault(t *testing.T) {
	r, err := client.NewReporter(serve(t, &fakeIngest{}), client.DefaultConfig(), client.Handlers{})
	require.NoError(t, err)
	for want, bad := range map[string]*starlingv1.Report{
		"vehicle_id":   report("no spaces", 1),
		"more than":    report("v", client.MaxFixesPerReport+1),
		"neither":      report("v", 0),
		"sequence":     {VehicleId: "v", SessionId: 1, Availability: starlingv1.Availability_AVAILABILITY_FREE},
		"session_id":   {VehicleId: "v", Sequence: 1, Availability: starlingv1.Availability_AVAILABILITY_FREE},
		"1 to 64":      report("", 1),
		"bytes":        {VehicleId: "v", Attributes: &starlingv1.Attributes{Type: strings.Repeat("x", client.MaxReportBytes)}},
		"invalid repo": report("vehicle-name-of-sixty-five-characters-xxxxxxxxxxxxxxxxxxxxxxxxxxx", 1),
	} {
		err := r.Send(t.Context(), bad)
		require.ErrorIs(t, err, client.ErrInvalidReport)
		require.ErrorContains(t, err, want)
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	_, err := client.NewReporter(nil, client.Config{BackoffMax: -1}, client.Handlers{})
	for _, field := range []string{"max_pending_reports", "max_pending_bytes", "max_vehicles", "ack_timeout", "backoff_min", "backoff_max"} {
		require.ErrorContains(t, err, field)
	}
}
