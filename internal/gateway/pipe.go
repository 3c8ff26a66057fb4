package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// pipeBytes is what a direction of a pipe holds that the other end has not read.
const pipeBytes = 256 << 10

// pipe is a connection in memory to a gRPC server of this process.
type pipe struct {
	*grpc.ClientConn
	listener *bufconn.Listener
}

// pipeCalls are the rules of calls over a pipe.
type pipeCalls struct {
	timeout         time.Duration
	maxRequestBytes int // as protobuf
}

func newPipe(name string, calls pipeCalls) (*pipe, error) {
	l := bufconn.Listen(pipeBytes)
	conn, err := grpc.NewClient("passthrough:///"+name,
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		// The connection does not leave the process.
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// The server bounds what it answers.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
		grpc.WithChainUnaryInterceptor(calls.unary),
		grpc.WithChainStreamInterceptor(calls.stream),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to the %s service in memory: %w", name, err)
	}
	return &pipe{conn, l}, nil
}

// checkSize refuses what the server would refuse as too large. The server's own
// status asks to come back, which can't help.
func (c pipeCalls) checkSize(req any) error {
	m, ok := req.(proto.Message)
	if !ok {
		return nil
	}
	if n := proto.Size(m); n > c.maxRequestBytes {
		return &runtime.HTTPStatusError{
			HTTPStatus: http.StatusRequestEntityTooLarge,
			Err:        tooLarge(fmt.Sprintf("the request has %d bytes as protobuf, at most %d are taken", n, c.maxRequestBytes)).Err(),
		}
	}
	return nil
}

// unary bounds a call and notes its name for the metrics.
func (c pipeCalls) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx = noteCall(ctx, method)
	if err := c.checkSize(req); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if err := invoke(ctx, method, req, reply, cc, opts...); err != nil {
		return err
	}
	if of := callOf(ctx); of != nil && of.message != nil {
		return of.message.came(ctx, reply)
	}
	return nil
}

// stream notes the call's name for the metrics, and has a stream that fails
// before its first message fail at once, so that the answer's HTTP status is the error's.
func (c pipeCalls) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx = noteCall(ctx, method)
	s, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, err
	}
	p := &promptStream{ClientStream: s, calls: c}
	if of := callOf(ctx); of != nil {
		p.message = of.message
	}
	return p, nil
}

type promptStream struct {
	grpc.ClientStream
	calls   pipeCalls
	message *message // nil if it is not charged
}

// RecvMsg implements grpc.ClientStream: it is called when the message before has
// been written.
func (s *promptStream) RecvMsg(m any) error {
	if s.message == nil {
		return s.ClientStream.RecvMsg(m)
	}
	s.message.written()
	if err := s.ClientStream.RecvMsg(m); err != nil {
		return err
	}
	return s.message.came(s.Context(), m)
}

// SendMsg implements grpc.ClientStream.
func (s *promptStream) SendMsg(m any) error {
	if err := s.calls.checkSize(m); err != nil {
		return err
	}
	return s.ClientStream.SendMsg(m)
}

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
