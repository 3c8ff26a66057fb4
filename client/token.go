package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TokenSource returns the token to call with. It is called when there is none, a
// while before the last one expires, and after the server has refused it as one
// that is not valid any more. It may be called from several goroutines.
type TokenSource func(ctx context.Context) (token string, err error)

// renewBefore is how long before its expiry a token is renewed: a tenth of what
// was left of it, at most this.
const renewBefore = time.Minute

// tokens keeps a source's last token and puts it into calls. It implements
// credentials.PerRPCCredentials.
type tokens struct {
	source TokenSource
	now    func() time.Time

	mu    sync.Mutex
	token string
	renew time.Time // zero when it is not known when the token expires
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t *tokens) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := t.get(ctx)
	if err != nil {
		return nil, status.Error(codes.Unavailable, "no token: "+err.Error())
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials. Dial has its
// own rule.
func (*tokens) RequireTransportSecurity() bool { return false }

func (t *tokens) get(ctx context.Context) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if t.token != "" && !t.renew.IsZero() && now.Before(t.renew) {
		return t.token, nil
	}
	token, err := t.source(ctx)
	if err != nil {
		return "", err
	}
	t.token, t.renew = token, time.Time{}
	if expires, ok := expiry(token); ok {
		t.renew = expires.Add(-min(renewBefore, expires.Sub(now)/10))
	}
	return token, nil
}

// forget has the next call ask the source.
func (t *tokens) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.token = ""
}

// expiry reads the claim exp of a JWT, without verifying anything: only the server
// decides what a token is worth.
func expiry(token string) (time.Time, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, false
	}
	var claims struct {
		Expires float64 `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Expires <= 0 || claims.Expires > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(int64(claims.Expires), 0), true
}

// options put tokens into all calls of a connection, and notice refusals.
func (t *tokens) options() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithPerRPCCredentials(t),
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			err := invoke(ctx, method, req, reply, cc, opts...)
			t.notice(err)
			return err
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			s, err := open(ctx, desc, cc, method, opts...)
			t.notice(err)
			if err != nil {
				return nil, err
			}
			return &noticing{s, t}, nil
		}),
	}
}

func (t *tokens) notice(err error) {
	if status.Code(err) == codes.Unauthenticated {
		t.forget()
	}
}

// noticing is a stream whose end is noticed.
type noticing struct {
	grpc.ClientStream
	tokens *tokens
}

// RecvMsg implements grpc.ClientStream.
func (n *noticing) RecvMsg(m any) error {
	err := n.ClientStream.RecvMsg(m)
	n.tokens.notice(err)
	return err
}

// mayCarryTokens returns why a connection without TLS must not carry tokens, or
// nil: they would be anybody's who is on the way.
func mayCarryTokens(target string) error {
	address := target[strings.LastIndex(target, "/")+1:]
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("connection to %q: a token is not sent without TLS to another machine: set DialOptions.TLS", target)
}
