package ingest_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/ingest"
	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// stampingLog is a fakeLog that also shows one new record, stamped ahead of now,
// to whoever waits for one.
type stampingLog struct {
	fakeLog
	ahead time.Duration
	shown atomic.Bool
	read  chan struct{} // a stamp was read and weighed
}

func newStampingLog(ahead time.Duration) *stampingLog {
	return &stampingLog{ahead: ahead, read: make(chan struct{}, 1)}
}

func (l *stampingLog) Bounds(context.Context, string) ([]eventlog.Bounds, error) {
	return make([]eventlog.Bounds, partitions), nil
}

func (l *stampingLog) NewReader(_ context.Context, _ string, start map[int32]int64) (eventlog.Reader, error) {
	for p, offset := range start {
		return &stampReader{l, eventlog.Batch{Partition: p, Records: []eventlog.Stored{{Offset: offset, AppendTimeMS: now.Add(l.ahead).UnixMilli()}}, End: offset + 1}}, nil
	}
	return nil, eventlog.ErrUnknownTopic
}

type stampReader struct {
	log   *stampingLog
	batch eventlog.Batch
}

func (r *stampReader) Poll(ctx context.Context) (eventlog.Batch, error) {
	if r.log.shown.Swap(true) {
		<-ctx.Done()
		return eventlog.Batch{}, ctx.Err()
	}
	return r.batch, nil
}

func (r *stampReader) Close() error {
	select {
	case r.log.read <- struct{}{}:
	default:
	}
	return nil
}

// awaitStamp waits until a stamp has been weighed.
func (l *stampingLog) awaitStamp(t *testing.T) {
	t.Helper()
	select {
	case <-l.read:
	case <-time.After(patience):
		require.FailNow(t, "no stamp was read")
	}
}

// reportOf is a report with one fix of a vehicle whose clock is off by so much.
func reportOf(vehicle string, sequence int64, off time.Duration) *starlingv1.Report {
	return &starlingv1.Report{VehicleId: vehicle, SessionId: 7, Sequence: sequence, Fixes: []*starlingv1.Fix{goodFix(off)}}
}

// report sends a report by a stream of its own and returns its acknowledgement or
// the stream's end.
func (d *endpoint) report(t *testing.T, r *starlingv1.Report) (*starlingv1.StreamReportsResponse, error) {
	t.Helper()
	s := d.stream(t)
	send(t, s, r)
	require.NoError(t, s.CloseSend())
	return s.Recv()
}

func requireKeptBack(t *testing.T, err error) {
	t.Helper()
	st := status.Convert(err)
	require.Equal(t, codes.Unavailable, st.Code(), "%v", err)
	var reason string
	var delay time.Duration
	for _, detail := range st.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = detail.Reason
		case *errdetails.RetryInfo:
			delay = detail.RetryDelay.AsDuration()
		}
	}
	require.Equal(t, "CLOCK_IN_DOUBT", reason)
	require.GreaterOrEqual(t, delay, 10*time.Second)
}

func requireAccepted(t *testing.T, ack *starlingv1.StreamReportsResponse, err error) {
	t.Helper()
	require.NoError(t, err)
	require.Equal(t, int64(1), ack.AcknowledgedReports)
	require.Empty(t, ack.Refusals)
}

func requireRefused(t *testing.T, ack *starlingv1.StreamReportsResponse, err error, reason starlingv1.RefusalReason) {
	t.Helper()
	require.NoError(t, err)
	require.Equal(t, int64(1), ack.AcknowledgedReports)
	require.Len(t, ack.Refusals, 1)
	require.Equal(t, reason, ack.Refusals[0].Reason)
}

const (
	tooFarAhead = starlingv1.RefusalReason_REFUSAL_REASON_TIME_TOO_FAR_AHEAD
	tooOld      = starlingv1.RefusalReason_REFUSAL_REASON_TIME_TOO_OLD
)

// A server whose clock was set wrong while it runs keeps back the refusals that
// its log's stamps contradict, and takes the fixes once it is set right.
func TestAClockThatTheLogContradictsRefusesNothing(t *testing.T) {
	for _, step := range []time.Duration{-3 * time.Hour, 31 * 24 * time.Hour} {
		t.Run(step.String(), func(t *testing.T) {
			log := newStampingLog(0)
			d := open(t, log)
			log.awaitStamp(t)
			ack, err := d.report(t, reportOf("v", 1, -time.Second))
			requireAccepted(t, ack, err)
			require.True(t, d.server.Ready())

			d.skew.Store(int64(step))
			require.False(t, d.server.Ready())
			_, err = d.report(t, reportOf("v", 2, 0))
			requireKeptBack(t, err)
			_, err = d.client.SendReport(t.Context(), &starlingv1.SendReportRequest{Report: reportOf("v", 2, 0)})
			requireKeptBack(t, err)
			require.Len(t, log.records(), 1, "what was kept back is not stored")
			require.Equal(t, 2.0, d.metric(t, "starling_ingest_reports_kept_back_total"))
			require.Equal(t, 1.0, d.metric(t, "starling_ingest_clock_in_doubt", "by", "log"))
			alarmtest.Raised(t, d.registry, "starling_ingest_clock_in_doubt")
			alarmtest.Raised(t, d.registry, "starling_ingest_clock_skew_seconds")
			alarmtest.Raised(t, d.registry, "starling_ingest_reports_kept_back_total")
			require.Zero(t, d.metric(t, "starling_ingest_fixes_refused_total"))

			d.skew.Store(0)
			require.True(t, d.server.Ready())
			ack, err = d.report(t, reportOf("v", 2, 0))
			requireAccepted(t, ack, err)
		})
	}
}

// The log's clock counts on from its stamp at the monotonic clock's pace.
func TestTheLogsClockGoesOnBetweenStamps(t *testing.T) {
	log := newStampingLog(0)
	d := open(t, log)
	ack, err := d.report(t, reportOf("v", 1, 0))
	requireAccepted(t, ack, err)
	log.awaitStamp(t)
	d.elapsed.Store(int64(9 * time.Minute))
	require.True(t, d.server.Ready())
	d.skew.Store(-int64(9 * time.Minute))
	require.False(t, d.server.Ready(), "the wall clock stands still")
	d.elapsed.Store(int64(11 * time.Minute))
	require.True(t, d.server.Ready(), "what is older than 10 minutes proves nothing")
}

// A server that starts with a wrong clock has only the devices to compare it
// with. Not even the first of them loses a fix.
func TestAClockThatMostDevicesContradictRefusesNothing(t *testing.T) {
	d := open(t, &fakeLog{})
	d.skew.Store(-int64(3 * time.Hour))
	for i := range 6 {
		_, err := d.report(t, reportOf(fmt.Sprint("honest-", i), 1, -time.Duration(i)*time.Second))
		requireKeptBack(t, err)
		require.Equal(t, i < 1, d.server.Ready(), "one vehicle does not put the server out of service")
	}
	require.Zero(t, d.metric(t, "starling_ingest_fixes_refused_total"))
	require.Equal(t, 1.0, d.metric(t, "starling_ingest_clock_in_doubt", "by", "devices"))

	d.skew.Store(0)
	require.True(t, d.server.Ready())
	ack, err := d.report(t, reportOf("honest-0", 1, 0))
	requireAccepted(t, ack, err)
}

func TestOneWrongDeviceAmongHonestOnesIsRefused(t *testing.T) {
	for _, log := range []ingest.Appender{newStampingLog(0), &fakeLog{}} {
		d := open(t, log)
		for i := range 2 {
			ack, err := d.report(t, reportOf(fmt.Sprint("honest-", i), 1, -time.Duration(40*i)*time.Second))
			requireAccepted(t, ack, err)
		}
		ack, err := d.report(t, reportOf("ahead", 1, 3*time.Hour))
		requireRefused(t, ack, err, tooFarAhead)
		ack, err = d.report(t, reportOf("old", 1, -40*24*time.Hour))
		requireRefused(t, ack, err, tooOld)
		require.True(t, d.server.Ready())
	}
}

// A vehicle alone does not contradict a clock that the log confirms.
func TestOneWrongDeviceAloneIsRefusedWhereTheLogConfirmsTheClock(t *testing.T) {
	log := newStampingLog(0)
	d := open(t, log)
	log.awaitStamp(t)
	ack, err := d.report(t, reportOf("ahead", 1, 3*time.Hour))
	requireRefused(t, ack, err, tooFarAhead)
	require.True(t, d.server.Ready())
}

// A phone's own fixes confirm the clock too.
func TestAFixAheadAmongGoodOnesIsRefused(t *testing.T) {
	d := open(t, &fakeLog{})
	r := reportOf("v", 1, -time.Second)
	r.Fixes = append(r.Fixes, goodFix(time.Hour))
	ack, err := d.report(t, r)
	requireRefused(t, ack, err, tooFarAhead)
}

// Queues that are too old are no clock: they do not agree with one another.
func TestOldQueuesDoNotPutTheClockInDoubt(t *testing.T) {
	d := open(t, &fakeLog{})
	for i := range 8 {
		ack, err := d.report(t, reportOf(fmt.Sprint("offline-", i), 1, -31*24*time.Hour-time.Duration(i)*time.Hour))
		requireRefused(t, ack, err, tooOld)
	}
	require.True(t, d.server.Ready())
}

// Where most vehicles agree with the server, the log's clock is the wrong one.
func TestDevicesConfirmTheClockAgainstTheLog(t *testing.T) {
	log := newStampingLog(time.Hour)
	d := open(t, log)
	ack, err := d.report(t, reportOf("honest-0", 1, 0))
	requireAccepted(t, ack, err)
	log.awaitStamp(t)
	require.False(t, d.server.Ready(), "one vehicle confirms nothing")
	ack, err = d.report(t, reportOf("honest-1", 1, 0))
	requireAccepted(t, ack, err)
	require.True(t, d.server.Ready())
	ack, err = d.report(t, reportOf("ahead", 1, 3*time.Hour))
	requireRefused(t, ack, err, tooFarAhead)
}

// Within the tolerance a fix is refused when it breaks the rule by the log's
// clock as well, by which the tracker judges it.
func TestBoundsFollowTheLogWithinTheTolerance(t *testing.T) {
	log := newStampingLog(20 * time.Second)
	d := open(t, log)
	ack, err := d.report(t, reportOf("v", 1, 0))
	requireAccepted(t, ack, err)
	log.awaitStamp(t)
	ack, err = d.report(t, reportOf("v", 2, 2*time.Minute+20*time.Second))
	requireAccepted(t, ack, err)
	ack, err = d.report(t, reportOf("w", 1, 0))
	requireAccepted(t, ack, err)
	ack, err = d.report(t, reportOf("v", 3, 2*time.Minute+21*time.Second))
	requireRefused(t, ack, err, tooFarAhead)
}

// append_seconds begins when a report is handed to the log: waiting for capacity
// before that is not the log's time.
func TestAppendSecondsBeginWithTheLog(t *testing.T) {
	log := &fakeLog{hold: true}
	d := open(t, log, func(c *ingest.Config) { c.Limits.StreamReports = 1 })
	s := d.stream(t)
	send(t, s, report(1, 1))
	log.awaitHeld(t, 1)
	send(t, s, report(2, 1)) // waits for capacity
	d.elapsed.Add(int64(5 * time.Second))
	log.release(0)
	until(t, s, 1)
	log.awaitHeld(t, 2)
	d.elapsed.Add(int64(time.Second))
	log.release(1)
	ack, err := s.Recv()
	require.NoError(t, err)
	require.Equal(t, int64(2), ack.AcknowledgedReports)
	families, err := d.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "starling_ingest_append_seconds" {
			require.InDelta(t, 6, f.GetMetric()[0].GetHistogram().GetSampleSum(), 0.01)
			return
		}
	}
	require.FailNow(t, "no metric")
}

// A wall clock that is set back does not hold up a stream with a rate.
func TestRatesDoNotFollowTheWallClock(t *testing.T) {
	d := open(t, &fakeLog{}, func(c *ingest.Config) { c.Limits.StreamReportsPerSec = 1000 })
	s := d.stream(t)
	send(t, s, report(1, 1))
	until(t, s, 1)
	d.skew.Store(-int64(20 * 24 * time.Hour))
	send(t, s, &starlingv1.Report{VehicleId: "v", SessionId: 7, Sequence: 2, Availability: starlingv1.Availability_AVAILABILITY_FREE})
	ack, err := s.Recv()
	require.NoError(t, err)
	require.Equal(t, int64(2), ack.AcknowledgedReports)
}
