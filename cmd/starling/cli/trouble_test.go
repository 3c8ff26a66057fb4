package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// lockedBuffer may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// fullIngest answers as a server whose disk is full.
type fullIngest struct {
	starlingv1.UnimplementedIngestServiceServer
}

func (fullIngest) StreamReports(grpc.BidiStreamingServer[starlingv1.StreamReportsRequest, starlingv1.StreamReportsResponse]) error {
	st, err := status.New(codes.ResourceExhausted, "the disk is nearly full").WithDetails(&errdetails.ErrorInfo{Reason: "LOG_FULL", Domain: "ingest.starling.v1"})
	if err != nil {
		return err
	}
	return st.Err()
}

// Whoever simulates or replays is shown why nothing is taken, while it is so.
func TestWhyNothingIsTakenIsShown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	starlingv1.RegisterIngestServiceServer(server, fullIngest{})
	go server.Serve(l)
	t.Cleanup(server.Stop)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	require.NoError(t, err)
	t.Cleanup(func() { silent.Close() })

	for _, c := range []struct{ addr, why string }{
		{l.Addr().String(), "LOG_FULL: the disk is nearly full"},
		{"127.0.0.1:1", "no connection: connection refused"},
		{silent.Addr().String(), "no "}, // acknowledgement yet, or answer in time
	} {
		t.Run(c.why, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			errs, ended := &lockedBuffer{}, make(chan int, 1)
			go func() {
				ended <- Main(ctx, []string{"simulate", "--vehicles", "5", "--quiet", "--ingest", c.addr, "--drain-timeout", "100ms"}, IO{In: strings.NewReader(""), Out: &bytes.Buffer{}, Err: errs})
			}()
			want := fmt.Sprintf("ingest at %s: %s", c.addr, c.why)
			require.Eventually(t, func() bool { return strings.Contains(errs.String(), want) }, time.Minute, 10*time.Millisecond, "%s", errs)
			cancel()
			require.Equal(t, exitFailed, <-ended)
			require.NotRegexp(t, foreign, errs.String())
		})
	}
}

func TestTheSameTroubleIsShownOnceInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		shown := &troubles{w: &out, addr: "a:1"}
		for i := range 100 {
			shown.report(fmt.Errorf("no connection, attempt %d", i))
			time.Sleep(100 * time.Millisecond)
		}
		shown.report(errors.New("something else"))
		shown.report(errors.New("no connection, attempt 100"))
		require.Equal(t, "ingest at a:1: no connection, attempt 0\ningest at a:1: something else\ningest at a:1: no connection, attempt 100 (and 99 times since the last line)\n", out.String())
	})
}
