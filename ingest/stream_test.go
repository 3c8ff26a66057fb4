package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/ingest"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// ending receives until the stream ends and returns its status and how many
// reports were acknowledged.
func ending(t *testing.T, s reports) (*status.Status, int64) {
	t.Helper()
	var acked int64
	for {
		ack, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return status.New(codes.OK, ""), acked
		}
		if err != nil {
			return status.Convert(err), acked
		}
		acked = ack.AcknowledgedReports
	}
}

func detail[T proto.Message](st *status.Status) (found T) {
	for _, d := range st.Details() {
		if m, ok := d.(T); ok {
			found = m
		}
	}
	return found
}

func requireRetryInfo(t *testing.T, st *status.Status) {
	t.Helper()
	delay := detail[*errdetails.RetryInfo](st).GetRetryDelay().AsDuration()
	least := ingest.DefaultConfig().Limits.RetryDelay
	require.GreaterOrEqual(t, delay, least, "%v", st)
	require.LessOrEqual(t, delay, 2*least)
}

func TestStoresAndAcknowledges(t *testing.T) {
	log := &fakeLog{}
	d := open(t, log)
	s := d.stream(t)
	first := report(1, 3)
	first.Availability = starlingv1.Availability_AVAILABILITY_FREE
	first.Attributes = &starlingv1.Attributes{Type: "van", Seats: 6, Tags: []string{"quiet", "wheelchair"}}
	send(t, s, first)
	send(t, s, &starlingv1.Report{Sequence: 2, Fixes: []*starlingv1.Fix{goodFix(0)}}) // inherits both ids
	send(t, s, &starlingv1.Report{VehicleId: "w", Sequence: 9, Availability: starlingv1.Availability_AVAILABILITY_OFFLINE})
	ack := until(t, s, 3)
	require.Equal(t, int64(9), ack.AcknowledgedSequence)
	require.Empty(t, ack.Refusals)
	require.NoError(t, s.CloseSend())
	st, _ := ending(t, s)
	require.Equal(t, codes.OK, st.Code())

	got := log.records()
	require.Len(t, got, 3)
	for i, want := range []struct {
		key      string
		sequence int64
		fixes    int
	}{{"v", 1, 3}, {"v", 2, 1}, {"w", 9, 0}} {
		require.Equal(t, "locations", got[i].topic)
		require.Equal(t, want.key, got[i].key)
		require.Equal(t, eventlog.PartitionOf([]byte(want.key), partitions), got[i].partition)
		require.Equal(t, wire.KindReport, got[i].location.Kind)
		require.Equal(t, uint64(7), got[i].location.Report.SessionID)
		require.Equal(t, want.sequence, got[i].location.Report.Sequence)
		require.Len(t, got[i].location.Report.Fixes, want.fixes)
		require.Empty(t, got[i].location.Report.VehicleID, "the key names the vehicle")
	}
	stored := got[0].location.Report
	stored.VehicleID = "v"
	require.True(t, proto.Equal(first, stored.ToProto()))
	require.Equal(t, 3.0, d.metric(t, "starling_ingest_reports_acknowledged_total"))
	require.Equal(t, 4.0, d.metric(t, "starling_ingest_fixes_acknowledged_total"))
	require.Equal(t, 1.0, d.metric(t, "starling_ingest_streams_ended_total", "code", "OK"))
	require.Zero(t, d.metric(t, "starling_ingest_in_flight_bytes"))
	require.Zero(t, d.metric(t, "starling_ingest_in_flight_reports"))
	require.Zero(t, d.metric(t, "starling_ingest_streams"))
}

func TestAcknowledgesInOrderWhateverTheLogsOrder(t *testing.T) {
	log := &fakeLog{hold: true}
	d := open(t, log)
	s := d.stream(t)
	for i := range int64(5) {
		send(t, s, report(i+1, 1))
	}
	log.awaitHeld(t, 5)
	for _, i := range []int{4, 2, 1} {
		log.release(i)
	}
	log.release(0)
	require.Equal(t, int64(3), until(t, s, 3).AcknowledgedSequence, "report 4 is not durable yet")
	log.release(3)
	require.Equal(t, int64(5), until(t, s, 5).AcknowledgedSequence)
}

func TestReportOfRefusedFixesWaitsItsTurn(t *testing.T) {
	log := &fakeLog{hold: true}
	d := open(t, log)
	s := d.stream(t)
	send(t, s, report(1, 1))
	bad := report(2, 1)
	bad.Fixes[0].Latitude = 91
	send(t, s, bad)
	log.awaitHeld(t, 1)
	log.releaseAll()
	ack := until(t, s, 2)
	require.Len(t, ack.Refusals, 1)
	require.Equal(t, int64(2), ack.Refusals[0].ReportNumber)
	require.Len(t, log.records(), 1)
}

// A failed append ends the stream after what came before it is acknowledged,
// whether the log stored the record or not.
func TestFailedAppendEndsStream(t *testing.T) {
	unknown := errors.New("timed out")
	cases := []struct {
		name    string
		install func(l *fakeLog, fail func(string) error)
		err     error
		code    codes.Code
		reason  string
	}{
		{"unknown outcome, not stored", func(l *fakeLog, f func(string) error) { l.before = f }, unknown, codes.Unavailable, "OUTCOME_UNKNOWN"},
		{"unknown outcome, stored", func(l *fakeLog, f func(string) error) { l.after = f }, unknown, codes.Unavailable, "OUTCOME_UNKNOWN"},
		{"full, reported later", func(l *fakeLog, f func(string) error) { l.before = f }, eventlog.ErrFull, codes.ResourceExhausted, "LOG_FULL"},
		{"full, reported at once", func(l *fakeLog, f func(string) error) { l.sync = f }, eventlog.ErrFull, codes.ResourceExhausted, "LOG_FULL"},
		{"closed", func(l *fakeLog, f func(string) error) { l.sync = f }, eventlog.ErrClosed, codes.Unavailable, "SHUTTING_DOWN"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			log := &fakeLog{}
			c.install(log, func(key string) error {
				if key == "bad" {
					return fmt.Errorf("append: %w", c.err)
				}
				return nil
			})
			d := open(t, log)
			s := d.stream(t)
			send(t, s, report(1, 1))
			send(t, s, report(2, 1))
			bad := report(3, 1)
			bad.VehicleId = "bad"
			send(t, s, bad)
			_ = s.Send(&starlingv1.StreamReportsRequest{Report: report(4, 1)}) // the stream may be over
			st, acked := ending(t, s)
			require.Equal(t, c.code, st.Code(), "%v", st)
			require.Equal(t, c.reason, detail[*errdetails.ErrorInfo](st).GetReason())
			require.Equal(t, int64(2), acked, "what came before is acknowledged, the report is not")
			requireRetryInfo(t, st)
		})
	}
}

func TestRecordTooLargeForLogIsInvalid(t *testing.T) {
	log := &fakeLog{sync: func(string) error { return eventlog.ErrTooLarge }}
	s := open(t, log).stream(t)
	send(t, s, report(1, 1))
	st, _ := ending(t, s)
	require.Equal(t, codes.InvalidArgument, st.Code())
}

// What follows a failed report is never acknowledged, even when it is durable
// before the failure is known.
func TestNothingBehindAFailureIsAcknowledged(t *testing.T) {
	log := &fakeLog{hold: true}
	d := open(t, log)
	s := d.stream(t)
	for i := range int64(4) {
		send(t, s, report(i+1, 1))
	}
	log.awaitHeld(t, 4)
	log.release(3)
	log.release(0)
	until(t, s, 1)
	log.mu.Lock()
	log.before = func(string) error { return errors.New("lost") }
	log.mu.Unlock()
	log.release(2)
	log.mu.Lock()
	log.before = nil
	log.mu.Unlock()
	log.release(1)
	st, acked := ending(t, s)
	require.Equal(t, codes.Unavailable, st.Code())
	require.Equal(t, int64(2), acked)
}

func TestResendAfterBreak(t *testing.T) {
	log := &fakeLog{hold: true}
	d := open(t, log)
	ctx, cancel := context.WithCancel(context.Background())
	broken, err := d.client.StreamReports(ctx)
	require.NoError(t, err)
	send(t, broken, report(1, 1))
	send(t, broken, report(2, 1))
	log.awaitHeld(t, 2)
	cancel()
	_, acked := ending(t, broken)
	require.Zero(t, acked)
	log.releaseAll() // durable, but nobody is there to receive it

	s := d.stream(t)
	send(t, s, report(1, 1))
	send(t, s, report(2, 1))
	until(t, s, 2)
	require.Len(t, log.records(), 4, "the tracker recognises the copies by their sequence")
	require.Eventually(t, func() bool { return d.metric(t, "starling_ingest_in_flight_bytes") == 0 }, patience, time.Millisecond)
	require.Zero(t, d.metric(t, "starling_ingest_in_flight_reports"))
}

func TestUnary(t *testing.T) {
	log := &fakeLog{}
	d := open(t, log)
	ctx := context.Background()
	r := report(5, 2)
	r.Fixes[0].Longitude = 181
	resp, err := d.client.SendReport(ctx, &starlingv1.SendReportRequest{Report: r})
	require.NoError(t, err)
	require.Equal(t, int64(5), resp.AcknowledgedSequence)
	require.Len(t, resp.Refusals, 1)
	require.Equal(t, int64(1), resp.Refusals[0].ReportNumber)
	require.Len(t, log.records(), 1)

	_, err = d.client.SendReport(ctx, &starlingv1.SendReportRequest{})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	require.NotNil(t, detail[*errdetails.BadRequest](status.Convert(err)))

	log.sync = func(string) error { return eventlog.ErrFull }
	_, err = d.client.SendReport(ctx, &starlingv1.SendReportRequest{Report: report(6, 1)})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	requireRetryInfo(t, status.Convert(err))

	log.sync, log.after = nil, func(string) error { return errors.New("lost") }
	_, err = d.client.SendReport(ctx, &starlingv1.SendReportRequest{Report: report(7, 1)})
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Zero(t, d.metric(t, "starling_ingest_in_flight_bytes"))
}

func TestShutdownAcknowledgesWhatIsDurable(t *testing.T) {
	log := &fakeLog{hold: true}
	d := open(t, log)
	s := d.stream(t)
	idle := d.stream(t)
	send(t, idle, report(1, 1))
	send(t, s, report(1, 1))
	send(t, s, report(2, 1))
	log.awaitHeld(t, 3)
	d.stop()
	log.releaseAll()
	st, acked := ending(t, s)
	require.Equal(t, codes.Unavailable, st.Code())
	require.Equal(t, "SHUTTING_DOWN", detail[*errdetails.ErrorInfo](st).GetReason())
	require.Equal(t, int64(2), acked)
	requireRetryInfo(t, st)
	st, acked = ending(t, idle)
	require.Equal(t, codes.Unavailable, st.Code())
	require.Equal(t, int64(1), acked)

	require.NoError(t, <-d.ended)
	d.ended <- nil
	late := d.stream(t)
	st, _ = ending(t, late)
	require.Equal(t, codes.Unavailable, st.Code())
	_, err := d.client.SendReport(context.Background(), &starlingv1.SendReportRequest{Report: report(1, 1)})
	require.Equal(t, codes.Unavailable, status.Code(err))
}
