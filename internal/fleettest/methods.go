package fleettest

import (
	"context"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// Method is a method of a gRPC server, called without a network.
type Method struct {
	Name string // as on the wire: /starling.v1.RideService/GetRide
	// Call calls it with any bytes as its request: what can be read of them is asked
	// for. A stream's context ends once its request has been read.
	Call func(ctx context.Context, request []byte) error
}

// Methods are all methods of the services that register adds to a server, in the
// order of their definition, so that none is forgotten when one is added.
func Methods(register func(grpc.ServiceRegistrar)) []Method {
	var m methods
	register(&m)
	return m
}

type methods []Method

// RegisterService implements grpc.ServiceRegistrar.
func (m *methods) RegisterService(desc *grpc.ServiceDesc, server any) {
	for _, d := range desc.Methods {
		*m = append(*m, Method{"/" + desc.ServiceName + "/" + d.MethodName, func(ctx context.Context, b []byte) error {
			_, err := d.Handler(server, ctx, func(request any) error {
				_ = proto.Unmarshal(b, request.(proto.Message))
				return nil
			}, nil)
			return err
		}})
	}
	for _, d := range desc.Streams {
		*m = append(*m, Method{"/" + desc.ServiceName + "/" + d.StreamName, func(ctx context.Context, b []byte) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			return d.Handler(server, &oneRequest{ctx: ctx, cancel: cancel, request: b})
		}})
	}
}

// oneRequest is the server's end of a stream that ends with its one request.
type oneRequest struct {
	ctx     context.Context
	cancel  func()
	request []byte
	read    bool
}

func (s *oneRequest) Context() context.Context     { return s.ctx }
func (s *oneRequest) SetHeader(metadata.MD) error  { return nil }
func (s *oneRequest) SendHeader(metadata.MD) error { return nil }
func (s *oneRequest) SetTrailer(metadata.MD)       {}
func (s *oneRequest) SendMsg(any) error            { return nil }

func (s *oneRequest) RecvMsg(request any) error {
	s.cancel()
	if s.read {
		return io.EOF
	}
	s.read = true
	_ = proto.Unmarshal(s.request, request.(proto.Message))
	return nil
}
