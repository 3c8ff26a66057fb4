package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// act is what the fake server does with one report that it receives.
type act int

const (
	actAck           act = iota // store and acknowledge
	actHold                     // store, acknowledge with a later report
	actRefuse                   // store, refuse fix 0, acknowledge
	actBreakBefore              // end the stream without storing it
	actBreakAfter               // store it, end the stream without acknowledging
	actEnd                      // store it, end the stream with status OK
	actBusy                     // RESOURCE_EXHAUSTED with RetryInfo, not stored
	actReject                   // INVALID_ARGUMENT that names the report
	actRejectUnnamed            // INVALID_ARGUMENT that names none
	actSilent                   // store and send nothing more on this stream
	actOveracknowledge
)

type reportKey struct {
	vehicle  string
	session  uint64
	sequence int64
}

// fakeIngest is an ingest service that follows a script: one act for each
// report it receives, actAck after the script's end.
type fakeIngest struct {
	starlingv1.UnimplementedIngestServiceServer

	mu         sync.Mutex
	script     []act
	received   int
	log        []reportKey // in the order of storing, resends included
	stored     map[reportKey]int
	arrivals   []time.Time // of streams
	fault      error       // the first breach of the protocol by the client
	retryDelay time.Duration
	ackDelay   time.Duration
}

func (f *fakeIngest) next() act {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.received
	f.received++
	if i < len(f.script) {
		return f.script[i]
	}
	return actAck
}

func (f *fakeIngest) breach(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault == nil {
		f.fault = fmt.Errorf(format, args...)
	}
}

func (f *fakeIngest) store(r *starlingv1.Report) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := reportKey{r.GetVehicleId(), r.GetSessionId(), r.GetSequence()}
	f.log = append(f.log, key)
	f.stored[key]++
}

func (f *fakeIngest) isStored(key reportKey) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stored[key] > 0
}

func (f *fakeIngest) StreamReports(stream grpc.BidiStreamingServer[starlingv1.StreamReportsRequest, starlingv1.StreamReportsResponse]) error {
	f.mu.Lock()
	f.arrivals = append(f.arrivals, time.Now())
	f.mu.Unlock()
	var number int64
	var named reportKey
	var refusals []*starlingv1.FixRefusal
	outstanding := map[reportKey]int{}
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if number > 0 {
				return stream.Send(&starlingv1.StreamReportsResponse{AcknowledgedReports: number, Refusals: refusals})
			}
			return nil
		}
		if err != nil {
			return err
		}
		number++
		r := req.GetReport()
		if r.GetVehicleId() == "" {
			r.VehicleId = named.vehicle
		}
		if r.GetSessionId() == 0 {
			r.SessionId = named.session
		}
		named = reportKey{vehicle: r.GetVehicleId(), session: r.GetSessionId()}
		if named.vehicle == "" || named.session == 0 || r.GetSequence() < 1 {
			f.breach("report without a name: %v", r)
		}
		if outstanding[named]++; outstanding[named] > client.MaxUnacknowledged {
			f.breach("%d unacknowledged reports of %v", outstanding[named], named)
		}
		todo := f.next()
		switch todo {
		case actBreakBefore:
			return status.Error(codes.Unavailable, "broken before storing")
		case actBusy:
			return f.busy()
		case actReject:
			return rejection(number)
		case actRejectUnnamed:
			return status.Error(codes.InvalidArgument, "something is wrong")
		}
		f.store(r)
		resp := &starlingv1.StreamReportsResponse{AcknowledgedReports: number, AcknowledgedSequence: r.GetSequence()}
		switch todo {
		case actBreakAfter:
			return status.Error(codes.Unavailable, "broken after storing")
		case actEnd:
			return nil
		case actSilent:
			<-stream.Context().Done()
			return status.FromContextError(stream.Context().Err()).Err()
		case actHold:
			continue
		case actOveracknowledge:
			resp.AcknowledgedReports += 5
		case actRefuse:
			refusals = append(refusals, &starlingv1.FixRefusal{ReportNumber: number, Sequence: r.GetSequence(), Field: "latitude", Reason: starlingv1.RefusalReason_REFUSAL_REASON_NULL_ISLAND})
		}
		if f.ackDelay > 0 {
			time.Sleep(f.ackDelay)
		}
		resp.Refusals, refusals = refusals, nil
		clear(outstanding)
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

func (f *fakeIngest) busy() error {
	st, err := status.New(codes.ResourceExhausted, "busy").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(f.retryDelay)})
	if err != nil {
		return err
	}
	return st.Err()
}

func rejection(number int64) error {
	st, err := status.New(codes.InvalidArgument, "bad report").WithDetails(&errdetails.ErrorInfo{
		Reason: "BAD", Metadata: map[string]string{client.MetadataReportNumber: strconv.FormatInt(number, 10)},
	})
	if err != nil {
		return err
	}
	return st.Err()
}

// serve starts f on an in-memory network and returns a connection to it.
func serve(t *testing.T, f *fakeIngest) *grpc.ClientConn {
	t.Helper()
	f.stored = map[reportKey]int{}
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	starlingv1.RegisterIngestServiceServer(server, f)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := client.Dial("passthrough:///fake", client.DialOptions{Extra: []grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
	}})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		server.Stop()
		require.NoError(t, <-served)
	})
	return conn
}
