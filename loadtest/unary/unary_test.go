package unary_test

import (
	"context"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/starling-fleet/starling/loadtest/unary"
)

const method = "/test.Echo/Repeat"

// serve runs a grpc-go server whose one method repeats its request's text as
// often as its length says, and fails on what begins with "fail ".
func serve(t *testing.T) *unary.Conn {
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
	conn, err := unary.Dial(listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func call(t *testing.T, conn *unary.Conn, text string) (string, error) {
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
// several times, and over more header fields than the dynamic tables hold.
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
	_, err := conn.Call("/test.Echo/None", nil)
	require.Equal(t, codes.Unimplemented, status.Code(err))
}

func TestRequestThatDoesNotFitIsRefused(t *testing.T) {
	_, err := serve(t).Call(method, make([]byte, unary.MaxRequestBytes+1))
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
	conn, err := unary.Dial(listener.Addr().String())
	require.NoError(t, err)
	_, err = conn.Call(method, nil)
	require.Error(t, err)
	require.NoError(t, listener.Close())
	_, err = unary.Dial(listener.Addr().String())
	require.ErrorContains(t, err, "dial 127.0.0.1:")
}
