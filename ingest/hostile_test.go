package ingest_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/ingest"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// rawCodec sends bytes as they are.
type rawCodec struct{ encoding.CodecV2 }

func (rawCodec) Name() string { return "proto" }

func (c rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

// raw opens a stream that sends bytes and receives acknowledgements.
func (d *endpoint) raw(t *testing.T) grpc.ClientStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	s, err := d.conn.NewStream(ctx, &starlingv1.IngestService_ServiceDesc.Streams[0],
		starlingv1.IngestService_StreamReports_FullMethodName, grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2("proto")}))
	require.NoError(t, err)
	return s
}

func encode(t *testing.T, r *starlingv1.Report) []byte {
	t.Helper()
	b, err := proto.Marshal(&starlingv1.StreamReportsRequest{Report: r})
	require.NoError(t, err)
	return b
}

// padded is a good report with an unknown field that makes it so long.
func padded(t *testing.T, bytes int) []byte {
	t.Helper()
	b := encode(t, report(2, 1))
	b = protowire.AppendTag(b, 15, protowire.BytesType)
	return protowire.AppendBytes(b, make([]byte, bytes-len(b)-protowire.SizeVarint(uint64(bytes))))
}

// honest requires that a well-behaved client on a connection of its own is served.
func (d *endpoint) honest(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := starlingv1.NewIngestServiceClient(d.dial(t)).StreamReports(ctx)
	require.NoError(t, err)
	for i := range int64(3) {
		r := report(i+1, 2)
		r.VehicleId = "honest"
		send(t, s, r)
		until(t, s, i+1)
	}
	require.NoError(t, s.CloseSend())
	_, err = s.Recv()
	require.ErrorIs(t, err, io.EOF)
}

func TestMessagesThatAreNoReports(t *testing.T) {
	limit := ingest.DefaultConfig().Limits.MaxMessageBytes
	cases := []struct {
		name    string
		message []byte
		code    codes.Code
	}{
		{"empty", nil, codes.InvalidArgument},
		{"garbage", []byte(strings.Repeat("\xff\x01garbage", 9)), codes.InvalidArgument},
		{"cut short", encode(t, report(2, 3))[:40], codes.InvalidArgument},
		{"vehicle id that is not UTF-8", []byte{0x0a, 0x03, 0x0a, 0x01, 0xff}, codes.InvalidArgument},
		{"as long as may be", padded(t, limit), codes.OK},
		{"too long", padded(t, limit+1), codes.InvalidArgument},
		{"far too long", padded(t, 2*limit+1), codes.ResourceExhausted},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			log := &fakeLog{}
			d := open(t, log)
			s := d.raw(t)
			require.NoError(t, s.SendMsg(encode(t, report(1, 1))))
			var ack starlingv1.StreamReportsResponse
			require.NoError(t, s.RecvMsg(&ack))
			require.NoError(t, s.SendMsg(c.message))
			require.NoError(t, s.CloseSend())
			st, acked := ending(t, &grpc.GenericClientStream[starlingv1.StreamReportsRequest, starlingv1.StreamReportsResponse]{ClientStream: s})
			require.Equal(t, c.code, st.Code(), "%v", st)
			switch c.code {
			case codes.OK:
				require.Equal(t, int64(2), acked)
			case codes.InvalidArgument:
				require.Equal(t, "2", detail[*errdetails.ErrorInfo](st).GetMetadata()["report_number"])
				require.NotEmpty(t, detail[*errdetails.BadRequest](st).GetFieldViolations())
				fallthrough
			default:
				require.Len(t, log.records(), 1)
			}
			if len(c.message) > limit { // the unary endpoint has the same bounds
				var resp starlingv1.SendReportResponse
				err := d.conn.Invoke(context.Background(), starlingv1.IngestService_SendReport_FullMethodName, c.message, &resp,
					grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2("proto")}))
				require.Equal(t, c.code, status.Code(err), "%v", err)
			}
			d.honest(t)
		})
	}
}

// A report that ends its stream does not cost the acknowledgement of those
// before it, even when the log is slower than the client.
func TestBadReportWaitsForThoseBeforeIt(t *testing.T) {
	log := &fakeLog{hold: true}
	d := open(t, log)
	s := d.raw(t)
	require.NoError(t, s.SendMsg(encode(t, report(1, 1))))
	require.NoError(t, s.SendMsg(encode(t, report(2, 1))))
	log.awaitHeld(t, 2)
	require.NoError(t, s.SendMsg([]byte{0xff}))
	log.releaseAll()
	st, acked := ending(t, &grpc.GenericClientStream[starlingv1.StreamReportsRequest, starlingv1.StreamReportsResponse]{ClientStream: s})
	require.Equal(t, codes.InvalidArgument, st.Code())
	require.Equal(t, int64(2), acked)
}

// While the log takes nothing, a client that sends without end is held back,
// and nothing is lost when the log goes on.
func TestBackpressure(t *testing.T) {
	log := &fakeLog{hold: true}
	const inFlight, total = 32, 3000
	d := open(t, log, func(c *ingest.Config) {
		c.Limits.VehicleFixesPerSec, c.Limits.VehicleReportsPerSec = 0, 0 // what holds it back is the log
		c.Limits.StreamReports = inFlight
		c.Limits.AppendWait = time.Hour
	})
	s := d.stream(t)
	sent := make(chan error, 1)
	go func() {
		for i := range int64(total) {
			if err := s.Send(&starlingv1.StreamReportsRequest{Report: report(i+1, 20)}); err != nil {
				sent <- err
				return
			}
		}
		sent <- s.CloseSend()
	}()
	log.awaitHeld(t, inFlight)
	d.honestUnlessHeld(t, log)
	require.LessOrEqual(t, d.metric(t, "starling_ingest_in_flight_reports"), float64(inFlight+1), "and the honest client's")
	require.LessOrEqual(t, d.metric(t, "starling_ingest_reports_received_total"), float64(inFlight+2))
	select {
	case err := <-sent:
		require.FailNow(t, "the client was not held back", "%v", err)
	default:
	}
	log.releaseAll()
	st, acked := ending(t, s)
	require.Equal(t, codes.OK, st.Code(), "%v", st)
	require.NoError(t, <-sent)
	require.Equal(t, int64(total), acked)
	require.Len(t, log.records(), total)
	for i, r := range log.records() {
		require.Equal(t, int64(i+1), r.location.Report.Sequence)
	}
}

// honestUnlessHeld checks that another client's report still reaches a log that
// holds everything.
func (d *endpoint) honestUnlessHeld(t *testing.T, log *fakeLog) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := starlingv1.NewIngestServiceClient(d.dial(t)).StreamReports(ctx)
	require.NoError(t, err)
	r := report(1, 1)
	r.VehicleId = "honest"
	send(t, s, r)
	log.await(t, "the honest report", func() bool { return log.held[len(log.held)-1].rec.key == "honest" })
	log.mu.Lock()
	log.held = log.held[:len(log.held)-1] // the rest of the test counts the other client's
	log.mu.Unlock()
}

func TestSlowLogEndsStreamWithRetry(t *testing.T) {
	log := &fakeLog{hold: true}
	d := open(t, log, func(c *ingest.Config) {
		c.Limits.StreamReports = 4
		c.Limits.AppendWait, c.Limits.FlushWait = 500*time.Millisecond, 50*time.Millisecond
	})
	s := d.stream(t)
	for i := range int64(6) {
		_ = s.Send(&starlingv1.StreamReportsRequest{Report: report(i+1, 1)})
	}
	st, acked := ending(t, s)
	require.Equal(t, codes.ResourceExhausted, st.Code(), "%v", st)
	require.Equal(t, "LOG_SLOW", detail[*errdetails.ErrorInfo](st).GetReason())
	requireRetryInfo(t, st)
	require.Zero(t, acked)
	log.releaseAll()
	require.Eventually(t, func() bool { return d.metric(t, "starling_ingest_in_flight_bytes") == 0 }, patience, time.Millisecond,
		"what the log settles after the stream's end is given back")
	d.honest(t)
}

// All streams together keep to the server's budget, and a call that finds no
// capacity is refused for the time being.
func TestServerBudget(t *testing.T) {
	const budget = 1 << 20
	log := &fakeLog{hold: true}
	d := open(t, log, func(c *ingest.Config) {
		c.Limits.ServerBytes = budget
		c.Limits.AppendWait = time.Second
	})
	for range 8 {
		s := d.stream(t)
		go func() {
			for i := int64(1); s.Send(&starlingv1.StreamReportsRequest{Report: report(i, 100)}) == nil; i++ {
			}
		}()
	}
	inFlight := func() float64 { return d.metric(t, "starling_ingest_in_flight_bytes") }
	require.Eventually(t, func() bool {
		require.LessOrEqual(t, inFlight(), float64(budget))
		return inFlight() > budget-20_000
	}, patience, time.Millisecond)
	_, err := d.client.SendReport(context.Background(), &starlingv1.SendReportRequest{Report: report(1, 1000)})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.Equal(t, "LOG_SLOW", detail[*errdetails.ErrorInfo](status.Convert(err)).GetReason())
	requireRetryInfo(t, status.Convert(err))
	require.LessOrEqual(t, inFlight(), float64(budget))
	log.releaseAll()
	d.honest(t)
}

// A call whose report the log neither stores nor refuses is answered all the
// same, and states nothing about the report.
func TestUnaryOfSilentLog(t *testing.T) {
	log := &fakeLog{hold: true}
	d := open(t, log, func(c *ingest.Config) { c.Limits.AppendWait = 50 * time.Millisecond })
	_, err := d.client.SendReport(context.Background(), &starlingv1.SendReportRequest{Report: report(1, 1)})
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Equal(t, "OUTCOME_UNKNOWN", detail[*errdetails.ErrorInfo](status.Convert(err)).GetReason())
	log.releaseAll()
	require.Zero(t, d.metric(t, "starling_ingest_in_flight_bytes"))
}

// A client that never reads its acknowledgements is cut off, holds no more than
// its share until then, and harms nobody.
func TestClientThatNeverReads(t *testing.T) {
	log := &fakeLog{}
	d := open(t, log, func(c *ingest.Config) { c.Limits.SendWait = 300 * time.Millisecond })
	s := d.stream(t)
	bad := report(1, 200)
	for _, f := range bad.Fixes[1:] {
		f.Latitude = math.NaN() // refusals make long acknowledgements
	}
	go func() {
		for s.Send(&starlingv1.StreamReportsRequest{Report: bad}) == nil {
			bad.Sequence++
		}
	}()
	opened := func() float64 { return d.metric(t, "starling_ingest_streams") }
	require.Eventually(t, func() bool { return opened() == 1 }, patience, time.Millisecond)
	d.honest(t)
	limit := ingest.DefaultConfig().Limits.StreamBytes
	require.Eventually(t, func() bool {
		require.LessOrEqual(t, d.metric(t, "starling_ingest_in_flight_bytes"), float64(limit))
		return opened() == 0
	}, patience, time.Millisecond)
	require.Equal(t, 1.0, d.metric(t, "starling_ingest_streams_ended_total", "code", "ResourceExhausted"))
	require.Zero(t, d.metric(t, "starling_ingest_in_flight_bytes"))
	st, acked := ending(t, s) // it reads at last, and gets the reason
	require.Equal(t, "ACKNOWLEDGEMENTS_UNREAD", detail[*errdetails.ErrorInfo](st).GetReason(), "%v", st)
	require.LessOrEqual(t, acked, int64(len(log.records())))
	d.honest(t)
}

func TestSilentStreamEnds(t *testing.T) {
	log := &fakeLog{hold: true}
	d := open(t, log, func(c *ingest.Config) { c.Limits.StreamIdleTimeout = 300 * time.Millisecond })
	silent, waiting := d.stream(t), d.stream(t)
	send(t, waiting, report(1, 1)) // silent as well, but for the log's sake
	log.awaitHeld(t, 1)
	st, _ := ending(t, silent)
	require.Equal(t, codes.DeadlineExceeded, st.Code())
	require.Equal(t, "STREAM_IDLE", detail[*errdetails.ErrorInfo](st).GetReason())
	log.releaseAll()
	st, acked := ending(t, waiting)
	require.Equal(t, codes.DeadlineExceeded, st.Code())
	require.Equal(t, int64(1), acked)
}

func TestTooManyStreams(t *testing.T) {
	d := open(t, &fakeLog{}, func(c *ingest.Config) { c.Limits.MaxStreams = 2 })
	first, second := d.stream(t), d.stream(t)
	for _, s := range []reports{first, second} {
		send(t, s, report(1, 1))
		until(t, s, 1)
	}
	st, _ := ending(t, d.stream(t))
	require.Equal(t, codes.ResourceExhausted, st.Code())
	require.Equal(t, "TOO_MANY_STREAMS", detail[*errdetails.ErrorInfo](st).GetReason())
	requireRetryInfo(t, st)
	require.NoError(t, first.CloseSend())
	_, _ = ending(t, first)
	require.Eventually(t, func() bool { return d.metric(t, "starling_ingest_streams") == 1 }, patience, time.Millisecond)
	d.honest(t)
}

// A thousand silent streams cost little and harm nobody.
func TestThousandIdleStreams(t *testing.T) {
	d := open(t, &fakeLog{})
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	const streams, perConn = 1000, 100
	before := heap()
	for range streams / perConn {
		client := starlingv1.NewIngestServiceClient(d.dial(t))
		for range perConn {
			ctx, cancel := context.WithCancel(context.Background())
			t.Cleanup(cancel)
			_, err := client.StreamReports(ctx)
			require.NoError(t, err)
		}
	}
	require.Eventually(t, func() bool { return d.metric(t, "starling_ingest_streams") == streams }, patience, time.Millisecond)
	each := (heap() - before) / streams
	t.Logf("%d bytes for each idle stream, the client's end included", each)
	require.Less(t, each, uint64(64<<10))
	d.honest(t)
}

// A stream with a rate is read no faster, and is not ended for it.
func TestFloodIsSlowedDown(t *testing.T) {
	rates := map[string]func(c *ingest.Config){
		"reports": func(c *ingest.Config) { c.Limits.StreamReportsPerSec = 100 },
		"fixes":   func(c *ingest.Config) { c.Limits.StreamFixesPerSec = 200 },
	}
	for name, set := range rates {
		t.Run(name, func(t *testing.T) {
			d := open(t, &fakeLog{}, set)
			s := d.stream(t)
			started := time.Now()
			go func() {
				for i := int64(1); s.Send(&starlingv1.StreamReportsRequest{Report: report(i, 2)}) == nil; i++ {
				}
			}()
			d.honest(t)
			// A second's worth is let through at once. The tests' clock
			// stands still, so that the reports after it wait 10 ms, 20 ms, ...
			const burst, more = 101, 10
			for acked := int64(0); acked < burst+more; {
				ack, err := s.Recv()
				require.NoError(t, err)
				acked = ack.AcknowledgedReports
			}
			require.GreaterOrEqual(t, time.Since(started), 550*time.Millisecond)
		})
	}
}

// FuzzStream feeds a stream whatever bytes, and a call of its own the same: the
// server must answer, to both alike.
func FuzzStream(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x0a, 0x02, 0x18, 0x05})
	good, err := proto.Marshal(&starlingv1.StreamReportsRequest{Report: report(1, 2)})
	require.NoError(f, err)
	f.Add(good)
	f.Fuzz(func(t *testing.T, message []byte) {
		log := &fakeLog{}
		d := open(t, log)
		s := d.raw(t)
		require.NoError(t, s.SendMsg(message))
		require.NoError(t, s.CloseSend())
		st, acked := ending(t, &grpc.GenericClientStream[starlingv1.StreamReportsRequest, starlingv1.StreamReportsResponse]{ClientStream: s})
		switch st.Code() {
		case codes.OK:
			require.Equal(t, int64(1), acked)
		case codes.InvalidArgument:
			require.Zero(t, acked)
			require.Empty(t, log.records())
		case codes.Unavailable: // a time too far ahead, and no other vehicle to compare with
			require.Zero(t, acked)
			require.Empty(t, log.records())
		default:
			require.FailNow(t, "unexpected status", fmt.Sprint(st))
		}
		// Both requests have the report as their field 1.
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err := d.conn.Invoke(ctx, starlingv1.IngestService_SendReport_FullMethodName, message, &starlingv1.SendReportResponse{},
			grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2("proto")}))
		want := st.Code()
		if status.Code(err) == codes.Internal {
			// gRPC decodes the request of a unary call before anything of ours is asked.
			require.Equal(t, codes.InvalidArgument, want)
			require.ErrorContains(t, err, "failed to unmarshal the received message")
			want = codes.Internal
		}
		require.Equal(t, want, status.Code(err), "the stream ended with %v, the call with %v", st, err)
	})
}
