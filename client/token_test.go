package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func jwtUntil(t time.Time) string {
	return "h." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, t.Unix())) + ".s"
}

// A token is kept until a while before it expires, and not after the server has
// refused it.
func TestTokensAreRenewed(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	asked := 0
	var fails error
	source := &tokens{now: func() time.Time { return now }, source: func(context.Context) (string, error) {
		asked++
		return jwtUntil(now.Add(100 * time.Second)), fails
	}}
	use := func() {
		t.Helper()
		md, err := source.GetRequestMetadata(t.Context())
		require.NoError(t, err)
		require.Contains(t, md["authorization"], "Bearer h.")
	}
	use()
	use()
	require.Equal(t, 1, asked)
	now = now.Add(89 * time.Second)
	use()
	require.Equal(t, 1, asked)
	now = now.Add(2 * time.Second) // less than a tenth is left
	use()
	require.Equal(t, 2, asked)
	source.notice(status.Error(codes.PermissionDenied, ""))
	use()
	require.Equal(t, 2, asked)
	source.notice(status.Error(codes.Unauthenticated, ""))
	use()
	require.Equal(t, 3, asked)
	source.forget()
	fails = errors.New("no network")
	_, err := source.GetRequestMetadata(t.Context())
	require.Equal(t, codes.Unavailable, status.Code(err), "a source that fails is asked again later")
}

// What is no JWT is asked for at each call.
func TestOpaqueTokens(t *testing.T) {
	for _, token := range []string{"opaque", "a.b.c", "a.e30.c", "a.eyJleHAiOjFlOTl9.c", ""} {
		_, ok := expiry(token)
		require.False(t, ok, token)
	}
}

// A token is not sent in the clear to another machine.
func TestTokensNeedTLS(t *testing.T) {
	token := func(context.Context) (string, error) { return "x", nil }
	for target, ok := range map[string]bool{"127.0.0.1:7600": true, "localhost:7600": true, "dns:///localhost:7600": true, "[::1]:7600": true, "ingest.example:7600": false, "10.0.0.1:7600": false, "dns:///ingest.example:7600": false} {
		conn, err := Dial(target, DialOptions{Token: token})
		if !ok {
			require.ErrorContains(t, err, "without TLS", target)
			continue
		}
		require.NoError(t, err, target)
		require.NoError(t, conn.Close())
	}
}

// A token that has been good is no reason to give up; one that never was is.
func TestJudgeOfTokens(t *testing.T) {
	refused := func(reason string) error {
		st, err := status.New(codes.Unauthenticated, "no").WithDetails(&errdetails.ErrorInfo{Reason: reason})
		require.NoError(t, err)
		return st.Err()
	}
	for reason, want := range map[string]streamEnd{"TOKEN_EXPIRED": endRetry, "TOKEN_KEY_REMOVED": endRetry, "TOKEN_ISSUER": endStop, "TOKEN_MISSING": endStop} {
		require.Equal(t, want, judge(refused(reason), false), reason)
		require.Equal(t, endRetry, judge(refused(reason), true), reason)
	}
	require.Equal(t, endStop, judge(status.Error(codes.PermissionDenied, ""), true))
}
