package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"
)

// pipeBytes is what a direction of a pipe holds that the other end has not read.
const pipeBytes = 256 << 10

// pipe is a connection in memory to a gRPC server of this process.
type pipe struct {
	*grpc.ClientConn
	listener *bufconn.Listener
}

func newPipe(name string, callTimeout time.Duration) (*pipe, error) {
	l := bufconn.Listen(pipeBytes)
	conn, err := grpc.NewClient("passthrough:///"+name,
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		// The connection does not leave the process.
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// The server bounds what it answers.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
		grpc.WithChainUnaryInterceptor(unaryCall(callTimeout)),
		grpc.WithChainStreamInterceptor(streamCall),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to the %s service in memory: %w", name, err)
	}
	return &pipe{conn, l}, nil
}

// unaryCall bounds a call and notes its name for the metrics.
func unaryCall(timeout time.Duration) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		noteCall(ctx, method)
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return invoke(ctx, method, req, reply, cc, opts...)
	}
}

// streamCall notes the call's name for the metrics, and has a stream that fails
// before its first message fail at once, so that the answer's HTTP status is the error's.
func streamCall(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	noteCall(ctx, method)
	s, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, err
	}
	return &promptStream{s}, nil
}

type promptStream struct{ grpc.ClientStream }

// Header returns the status of a stream that has ended without a header.
func (s *promptStream) Header() (metadata.MD, error) {
	md, err := s.ClientStream.Header()
	if md == nil && err == nil {
		if err = s.RecvMsg(new(emptypb.Empty)); errors.Is(err, io.EOF) {
			err = nil
		}
	}
	return md, err
}
