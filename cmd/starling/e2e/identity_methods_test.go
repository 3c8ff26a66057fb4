package e2e

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/auth/mint"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// methodsOf asks a server by reflection which methods it has.
func methodsOf(t *testing.T, ctx context.Context, conn *grpc.ClientConn) []string {
	t.Helper()
	s, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	require.NoError(t, err)
	ask := func(req *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		require.NoError(t, s.Send(req))
		resp, err := s.Recv()
		require.NoError(t, err)
		return resp
	}
	var all []string
	services := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}).GetListServicesResponse().GetService()
	for _, service := range services {
		files := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service.GetName()}}).GetFileDescriptorResponse().GetFileDescriptorProto()
		for _, raw := range files {
			var file descriptorpb.FileDescriptorProto
			require.NoError(t, proto.Unmarshal(raw, &file))
			for _, sd := range file.GetService() {
				if name := protoreflect.FullName(file.GetPackage()).Append(protoreflect.Name(sd.GetName())); string(name) == service.GetName() {
					for _, m := range sd.GetMethod() {
						all = append(all, "/"+service.GetName()+"/"+m.GetName())
					}
				}
			}
		}
	}
	require.NoError(t, s.CloseSend())
	return all
}

// call makes any call with an empty message and returns how it ends.
func call(ctx context.Context, conn *grpc.ClientConn, method string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	_ = s.SendMsg(&emptypb.Empty{}) // the status is at the other end
	_ = s.CloseSend()
	return s.RecvMsg(&emptypb.Empty{})
}

// TestEveryMethodAsksForAToken tries every method that the servers of a process
// have with every kind of token that must not do.
func TestEveryMethodAsksForAToken(t *testing.T) {
	i, stranger := newIssuer(t), newIssuer(t)
	p := startAs(t, i.trusting(), app.AllRoles()...)
	defer p.end(t)
	made := func(by *issuer, change func(*mint.Token)) string {
		c := mint.Token{Issuer: "test", Audience: "starling", Subject: "s", Scope: "report dispatch operate service", Vehicle: "*", Until: time.Now().Add(time.Hour)}
		change(&c)
		token, err := by.key.Sign(c)
		require.NoError(t, err)
		return token
	}
	tokens := map[auth.Reason]string{
		auth.Missing: "", auth.Malformed: "x.y.z", auth.TooLarge: string(bytes.Repeat([]byte("a"), 5000)),
		auth.WrongAlgorithm: "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.",
		auth.Expired:        made(i, func(c *mint.Token) { c.Until = time.Now().Add(-time.Minute) }),
		auth.NotYetValid:    made(i, func(c *mint.Token) { c.From = time.Now().Add(time.Minute) }),
		auth.WrongIssuer:    made(i, func(c *mint.Token) { c.Issuer = "other" }),
		auth.WrongAudience:  made(i, func(c *mint.Token) { c.Audience = "other" }),
		auth.UnknownKey:     made(stranger, func(*mint.Token) {}),
		auth.ScopeMissing:   made(i, func(c *mint.Token) { c.Scope = "none" }),
	}
	for _, addr := range []string{p.Addr(app.Ingest), p.Addr(app.Matcher)} {
		conn := dial(t, addr)
		methods := methodsOf(t, i.as("operate", ""), conn)
		require.GreaterOrEqual(t, len(methods), 5, "%v", methods)
		for _, method := range methods {
			for reason, token := range tokens {
				ctx := t.Context()
				if token != "" {
					ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
				}
				err := call(ctx, conn, method)
				if method == "/grpc.health.v1.Health/Check" {
					require.NoError(t, err)
					continue
				}
				require.Equal(t, string(reason), rpcstatus.ReasonOf(err), "%s: %v", method, err)
			}
		}
		// What is not a method is refused as well, to whoever it is.
		require.Equal(t, codes.Unauthenticated, status.Code(call(t.Context(), conn, "/starling.v1.FleetService/DropAll")))
		require.Equal(t, codes.PermissionDenied, status.Code(call(i.as("dispatch report operate", "*"), conn, "/starling.v1.FleetService/DropAll")))
		for _, path := range []string{"starling.v1.FleetService/ListVehicles", "starling.v1.IngestService/SendReport", "grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "//starling.v1.FleetService/ListVehicles"} {
			require.NotEqual(t, "0", rawCall(t, addr, path), path)
		}
		require.Equal(t, "0", rawCall(t, addr, "/grpc.health.v1.Health/Check"), "the raw client works")
	}
	for name, token := range tokens {
		for _, url := range []string{p.JSONAddr() + "/v1/vehicles", p.JSONAddr() + "/v1/nonsense", p.AdminAddr() + "/metrics", p.AdminAddr() + "/config", p.AdminAddr() + "/nonsense"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+url, nil)
			require.NoError(t, err)
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Contains(t, []int{http.StatusUnauthorized, http.StatusForbidden}, resp.StatusCode, "%s: %s", url, name)
		}
	}
}

// rawCall makes a call with an empty message by HTTP/2 frames and returns its
// grpc-status, or what else the server answers.
func rawCall(t *testing.T, addr, path string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, err = io.WriteString(conn, http2.ClientPreface)
	require.NoError(t, err)
	require.NoError(t, framer.WriteSettings())
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		require.NoError(t, enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}))
	}
	require.NoError(t, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}))
	require.NoError(t, framer.WriteData(1, true, make([]byte, 5)))
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return err.Error()
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			for _, field := range f.Fields {
				if field.Name == "grpc-status" {
					return field.Value
				}
			}
			if f.StreamEnded() {
				return "no status"
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return "ended"
		}
	}
}

// TestAStreamOfReportsEndsWithItsToken: what is durable when the token expires is
// acknowledged, and nothing after it is taken.
func TestAStreamOfReportsEndsWithItsToken(t *testing.T) {
	i := newIssuer(t)
	cfg := i.trusting()
	cfg.Auth.Leeway = 0
	p := startAs(t, cfg, app.AllRoles()...)
	defer p.end(t)
	client := starlingv1.NewIngestServiceClient(dial(t, p.Addr(app.Ingest)))
	// On a slow machine a token may have expired before the first report is
	// durable: then the next one lasts longer.
	open := func(valid time.Duration) (grpc.BidiStreamingClient[starlingv1.StreamReportsRequest, starlingv1.StreamReportsResponse], bool) {
		token, err := i.key.Sign(mint.Token{Issuer: "test", Audience: "starling", Subject: "s", Scope: "report", Vehicle: "car-1", Until: time.Now().Add(valid)})
		require.NoError(t, err)
		s, err := client.StreamReports(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token))
		require.NoError(t, err)
		_ = s.Send(&starlingv1.StreamReportsRequest{Report: reportOf("car-1")}) // the status is at the other end
		ack, err := s.Recv()
		return s, err == nil && ack.GetAcknowledgedReports() == 1
	}
	valid := 2 * time.Second
	s, acknowledged := open(valid)
	for ; !acknowledged && valid < time.Minute; s, acknowledged = open(valid) {
		valid *= 2
	}
	require.True(t, acknowledged)
	_, err := s.Recv()
	require.Equal(t, codes.Unauthenticated, status.Code(err), "%v", err)
	require.Equal(t, string(auth.Expired), rpcstatus.ReasonOf(err))
}

// TestAStreamOfReportsEndsWithItsKey: a key that is removed ends its streams after
// one read of the keys.
func TestAStreamOfReportsEndsWithItsKey(t *testing.T) {
	i := newIssuer(t)
	cfg := i.trusting()
	cfg.Auth.RefreshInterval = time.Second
	p := startAs(t, cfg, app.AllRoles()...)
	defer p.end(t)
	s, err := starlingv1.NewIngestServiceClient(dial(t, p.Addr(app.Ingest))).StreamReports(i.as("report", "car-1"))
	require.NoError(t, err)
	require.NoError(t, s.Send(&starlingv1.StreamReportsRequest{Report: reportOf("car-1")}))
	_, err = s.Recv()
	require.NoError(t, err)
	others, err := os.ReadFile(newIssuer(t).file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(i.file, others, 0o600))
	_, err = s.Recv()
	require.Equal(t, codes.Unauthenticated, status.Code(err), "%v", err)
	require.Equal(t, string(auth.KeyRemoved), rpcstatus.ReasonOf(err))
}
