package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// callerHeader carries, beside the token of a service of ours, for whom it asks.
const callerHeader = "starling-caller"

// forwardedCaller is the content of callerHeader.
type forwardedCaller struct {
	Issuer  string `json:"iss"`
	Subject string `json:"sub"`
	Scope   string `json:"scope"`
	Vehicle string `json:"vehicle,omitempty"`
}

// onBehalf returns for whom a service asks: a caller that has no more rights than
// the one that it names. One that names none asks for itself.
func onBehalf(service *Caller, headers metadata.MD) (*Caller, *Refusal) {
	values := headers.Get(callerHeader)
	if len(values) == 0 {
		return service, nil
	}
	var f forwardedCaller
	raw, err := base64.RawURLEncoding.DecodeString(values[0])
	if err != nil || len(values) > 1 || json.Unmarshal(raw, &f) != nil || f.Vehicle != "" && !ValidVehicle(f.Vehicle) {
		return nil, refuse(Malformed, "the header "+callerHeader+" can't be read")
	}
	c := &Caller{Issuer: f.Issuer, Subject: f.Subject, Vehicle: f.Vehicle, Expires: service.Expires, key: service.key, forwarded: true}
	for _, name := range strings.Fields(f.Scope) {
		scope, _ := ParseScope(name)
		c.Scopes |= scope
	}
	c.Scopes &^= Service
	return c, nil
}

// DialOptions let a client inside this process ask another of ours with the
// service token, on behalf of the caller in the context of the call.
func (g *Guard) DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			ctx, err := g.outgoing(ctx)
			if err != nil {
				return err
			}
			return invoke(ctx, method, req, reply, cc, opts...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			ctx, err := g.outgoing(ctx)
			if err != nil {
				return nil, err
			}
			return open(ctx, desc, cc, method, opts...)
		}),
	}
}

// outgoing adds the service token and the caller to a call.
func (g *Guard) outgoing(ctx context.Context) (context.Context, error) {
	if g.cfg.ServiceTokenFile == "" {
		return ctx, nil
	}
	token, err := g.forUs.get()
	if err != nil {
		return nil, refuse(KeysUnavailable, "the service token can't be read").Err()
	}
	pairs := []string{"authorization", "Bearer " + token}
	if c := CallerOf(ctx); c.Scopes != 0 {
		raw, err := json.Marshal(forwardedCaller{c.Issuer, c.Subject, c.Scopes.String(), c.Vehicle})
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, callerHeader, base64.RawURLEncoding.EncodeToString(raw))
	}
	return metadata.AppendToOutgoingContext(ctx, pairs...), nil
}

// serviceToken is a token in a file that somebody renews.
type serviceToken struct {
	path  string
	every time.Duration

	mu     sync.Mutex
	token  string
	readAt time.Time
}

func (s *serviceToken) get() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token != "" && time.Since(s.readAt) < s.every {
		return s.token, nil
	}
	data, err := readSmall(s.path)
	if err != nil {
		if s.token != "" {
			return s.token, nil // being renewed; it is refused once it has expired
		}
		return "", fmt.Errorf("auth.service_token_file: %w", err)
	}
	s.token, s.readAt = strings.TrimSpace(string(data)), time.Now()
	return s.token, nil
}
