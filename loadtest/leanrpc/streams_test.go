package leanrpc_test

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/starling-fleet/starling/loadtest/leanrpc"
)

// Many calls on one connection get their own messages, whole and in order, over
// windows and frames several times; each has its own end.
func TestStreamsAreThoseOfTheServer(t *testing.T) {
	const calls, messages = 20, 60
	text := func(name string, n int) string { return strings.Repeat(name, n*97) }
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Echo", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "Stream", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			var in wrapperspb.StringValue
			if err := s.RecvMsg(&in); err != nil {
				return err
			}
			for n := range messages {
				if err := s.SendMsg(wrapperspb.String(text(in.Value, n))); err != nil {
					return err
				}
			}
			if in.Value == "a" {
				return status.Error(codes.ResourceExhausted, "enough 100%")
			}
			return nil
		},
	}}}, struct{}{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	defer func() { server.Stop(); require.NoError(t, <-done) }()
	conn, err := leanrpc.DialStreams(listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	for n := range calls {
		request, err := proto.Marshal(wrapperspb.String(string(rune('a' + n))))
		require.NoError(t, err)
		require.NoError(t, conn.Open("/test.Echo/Stream", request, n))
	}
	var got [calls]int
	ends := 0
	require.NoError(t, conn.Run(func(number int, message []byte) error {
		var m wrapperspb.StringValue
		if err := proto.Unmarshal(message, &m); err != nil {
			return err
		}
		if m.Value != text(string(rune('a'+number)), got[number]) {
			return errors.New("another message")
		}
		got[number]++
		return nil
	}, func(number int, err error) error {
		ends++
		if number == 0 {
			require.Equal(t, codes.ResourceExhausted, status.Code(err))
			require.ErrorContains(t, err, "enough 100%")
			return nil
		}
		return err
	}))
	require.Equal(t, calls, ends)
	for _, n := range got {
		require.Equal(t, messages, n)
	}
}
