package sender_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/fleettest"
	"github.com/starling-fleet/starling/loadtest/sender"
	"github.com/starling-fleet/starling/schemas/wire"
)

func open(t *testing.T, s *fleettest.Server, o sender.Options) *sender.Stream {
	t.Helper()
	conn, stop, err := s.Start()
	require.NoError(t, err)
	t.Cleanup(stop)
	stream, err := sender.Open(t.Context(), conn, o)
	require.NoError(t, err)
	return stream
}

// put sends one report with a fix at a latitude; 0 is refused.
func put(s *sender.Stream, latDeg float64) (number int64, err error) {
	report, number, err := s.Next()
	if err != nil {
		return 0, err
	}
	report.VehicleID, report.SessionID, report.Sequence = "v", 1, number
	report.Fixes[0] = wire.Fix{DeviceTimeMS: number, LatDeg: latDeg}
	return number, s.Send()
}

func TestEverySentReportIsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var upTo, calls int64
		s := &fleettest.Server{}
		stream := open(t, s, sender.Options{FixesPerReport: 1, MaxUnacknowledged: 3, Acknowledged: func(before, now int64, refused int) {
			require.Equal(t, upTo, before)
			require.Zero(t, refused)
			upTo = now
			calls++
		}})
		for want := range int64(100) {
			number, err := put(stream, 1)
			require.NoError(t, err)
			require.Equal(t, want+1, number)
			require.LessOrEqual(t, stream.Unacknowledged(), int64(3))
		}
		require.NoError(t, stream.Close())
		require.EqualValues(t, 100, upTo)
		require.Positive(t, calls)
		require.Zero(t, stream.Unacknowledged())
		require.Len(t, s.Reports, 100)
	})
}

func TestRefusedFixEndsAStreamThatMayHaveNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream := open(t, &fleettest.Server{}, sender.OneFix())
		_, err := put(stream, 0)
		require.NoError(t, err)
		require.ErrorContains(t, stream.Close(), "a fix was refused")
	})
}

func TestBrokenStreamReturnsItsStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream := open(t, &fleettest.Server{BreakEvery: 5}, sender.Options{FixesPerReport: 1, MaxUnacknowledged: 1})
		var err error
		for n := 0; err == nil && n < 100; n++ {
			_, err = put(stream, 1)
		}
		require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
		require.EqualValues(t, 1, stream.Unacknowledged())
		require.Equal(t, codes.Unavailable, status.Code(stream.Close()))
	})
}

func TestAbortEndsAStreamThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, stop, err := (&fleettest.Server{}).Start()
		require.NoError(t, err)
		defer stop()
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := sender.Open(ctx, conn, sender.OneFix())
		require.NoError(t, err)
		_, err = put(stream, 1)
		require.NoError(t, err)
		cancel()
		stream.Abort()
		_, err = put(stream, 1)
		require.Error(t, err)
	})
}

// refusing is a connection to a server without the service.
type refusing struct{ grpc.ClientConnInterface }

func (refusing) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "no such service")
}

func TestStreamThatIsNotOpenedIsAnError(t *testing.T) {
	_, err := sender.Open(t.Context(), refusing{}, sender.OneFix())
	require.Equal(t, codes.Unimplemented, status.Code(err))
}
