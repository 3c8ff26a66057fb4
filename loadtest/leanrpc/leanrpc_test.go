package leanrpc_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/starling-fleet/starling/loadtest/leanrpc"
)

const method = "/test.Echo/Repeat"

// serve runs a grpc-go server whose one method repeats its request's text as
// often as its length states, and fails on what begins with "fail ".
func serve(t *testing.T) *leanrpc.Conn {
	t.Helper()
	repeat := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var in wrapperspb.StringValue
		if err := decode(&in); err != nil {
			return nil, err
		}
		if reason, ok := strings.CutPrefix(in.Value, "fail "); ok {
			return nil, status.Error(codes.ResourceExhausted, reason)
		}
		return wrapperspb.String(strings.Repeat(in.Value, len(in.Value))), nil
	}
	server := grpc.NewServer(grpc.MaxSendMsgSize(1 << 30))
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Echo", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Repeat", Handler: repeat}}}, struct{}{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-done)
	})
	conn, err := leanrpc.Dial(listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func call(t *testing.T, conn *leanrpc.Conn, text string) (string, error) {
	t.Helper()
	request, err := proto.Marshal(wrapperspb.String(text))
	require.NoError(t, err)
	answer, err := conn.Call(method, request)
	if err != nil {
		return "", err
	}
	var out wrapperspb.StringValue
	require.NoError(t, proto.Unmarshal(answer, &out))
	return out.Value, nil
}

// Requests and answers together go over the windows of streams and connection
// several times.
func TestAnswersAreThoseOfTheServer(t *testing.T) {
	conn := serve(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		text := strings.Repeat(string(rune('a'+rng.IntN(26))), 1+rng.IntN(200))
		got, err := call(t, conn, text)
		require.NoError(t, err)
		require.Equal(t, strings.Repeat(text, len(text)), got)
	}
	for _, length := range []int{0, 1024, 2100, 5000} { // to 25 MB, many windows
		text := strings.Repeat("x", length)
		got, err := call(t, conn, text)
		require.NoError(t, err)
		require.Equal(t, length*length, len(got))
	}
}

func TestServersErrorIsAStatusAndTheConnectionGoesOn(t *testing.T) {
	conn := serve(t)
	for range 3 {
		_, err := call(t, conn, "fail 100 % full, später")
		require.Equal(t, codes.ResourceExhausted, status.Code(err))
		require.Equal(t, "100 % full, später", status.Convert(err).Message())
		got, err := call(t, conn, "ab")
		require.NoError(t, err)
		require.Equal(t, "abab", got)
	}
}

// The server resets a stream whose request it refuses before it has read all of
// it; that may come when the next call has begun.
func TestResetOfTheCallBeforeIsNotOfThisOne(t *testing.T) {
	conn := serve(t)
	for i := range 3000 {
		_, err := conn.Call(fmt.Sprintf("/test.Echo/None%d", i), make([]byte, leanrpc.MaxRequestBytes)) // and headers that differ
		require.Equal(t, codes.Unimplemented, status.Code(err), "%v", err)
	}
}

// script is a server that answers by a function, whatever the request. Window
// is what its first stream may still send.
func script(t *testing.T, answer func(f *http2.Framer, window *atomic.Int64)) *leanrpc.Conn {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		t.Cleanup(func() { _ = conn.Close() })
		_, _ = io.ReadFull(conn, make([]byte, len(http2.ClientPreface)))
		framer := http2.NewFramer(conn, conn)
		var window atomic.Int64
		_ = framer.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 64})
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				return
			}
			switch f := frame.(type) {
			case *http2.DataFrame:
				go answer(framer, &window)
			case *http2.WindowUpdateFrame:
				if f.StreamID == 1 {
					window.Add(int64(f.Increment))
				}
			case *http2.SettingsFrame:
				if size, ok := f.Value(http2.SettingInitialWindowSize); ok {
					window.Store(int64(size))
				}
			}
		}
	}()
	conn, err := leanrpc.Dial(listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func block(fields ...string) []byte {
	var out bytes.Buffer
	encoder := hpack.NewEncoder(&out)
	for i := 0; i < len(fields); i += 2 {
		_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return out.Bytes()
}

// Padding counts in the windows and is not part of the answer, and a server
// that sends GOAWAY still answers.
func TestPaddedAnswerOfAServerThatStops(t *testing.T) {
	const length = 30_000
	conn := script(t, func(f *http2.Framer, window *atomic.Int64) {
		_ = f.WriteGoAway(1, http2.ErrCodeNo, nil)
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: block(":status", "200")})
		_ = f.WriteData(1, false, []byte{0, 0, 0, length >> 8, length & 0xff})
		for range length { // 7 MB, more than the windows
			for window.Load() < 300 {
				runtime.Gosched()
			}
			window.Add(-257)
			if f.WriteDataPadded(1, false, []byte{'x'}, make([]byte, 255)) != nil {
				return
			}
		}
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: block("grpc-status", "0")})
	})
	answer, err := conn.Call(method, nil)
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("x", length), string(answer))
}

func TestServerThatIsNotGRPCIsAnError(t *testing.T) {
	conn := script(t, func(f *http2.Framer, _ *atomic.Int64) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: block(":status", "404")})
		_ = f.WriteData(1, true, []byte("not found"))
	})
	_, err := conn.Call(method, nil)
	require.ErrorContains(t, err, "not a gRPC server")
}

func TestRequestThatDoesNotFitIsRefused(t *testing.T) {
	_, err := serve(t).Call(method, make([]byte, leanrpc.MaxRequestBytes+1))
	require.ErrorContains(t, err, "more than 16379")
}

func TestServerThatGoesIsAnError(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() {
		if conn, err := listener.Accept(); err == nil {
			_ = conn.Close()
		}
	}()
	conn, err := leanrpc.Dial(listener.Addr().String())
	require.NoError(t, err)
	_, err = conn.Call(method, nil)
	require.Error(t, err)
	require.NoError(t, listener.Close())
	_, err = leanrpc.Dial(listener.Addr().String())
	require.ErrorContains(t, err, "dial 127.0.0.1:")
}
