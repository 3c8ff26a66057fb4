package auth_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/auth/mint"
	"github.com/starling-fleet/starling/internal/rpcstatus"
)

// start is when the clock of a test begins.
var start = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// rsaKey is one for all tests: it takes long to make.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func edKey(t testing.TB) ed25519.PrivateKey {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return k
}

func signer(t testing.TB, secret any) *mint.Key {
	k, err := mint.NewKey(secret)
	require.NoError(t, err)
	return k
}

// claims are those of a good token, changed.
func claims(change ...func(*mint.Token)) mint.Token {
	c := mint.Token{Issuer: "https://id.example", Audience: "starling", Subject: "phone-1", Scope: "report", Vehicle: "car-1", Until: start.Add(time.Hour)}
	for _, f := range change {
		f(&c)
	}
	return c
}

func sign(t testing.TB, k *mint.Key, c mint.Token) string {
	token, err := k.Sign(c)
	require.NoError(t, err)
	return token
}

// keyServer is a JWKS that changes.
type keyServer struct {
	*httptest.Server
	mu      sync.Mutex
	keys    []map[string]string
	fails   bool
	fetched atomic.Int64
}

func newKeyServer(t testing.TB, secrets ...crypto.Signer) *keyServer {
	s := &keyServer{}
	s.set(t, secrets...)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fetched.Add(1)
		if s.fails {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": s.keys})
	}))
	t.Cleanup(s.Close)
	return s
}

func jwk(t testing.TB, secret crypto.Signer) map[string]string {
	encode := base64.RawURLEncoding.EncodeToString
	id, err := auth.Thumbprint(secret.Public())
	require.NoError(t, err)
	switch p := secret.Public().(type) {
	case ed25519.PublicKey:
		return map[string]string{"kty": "OKP", "crv": "Ed25519", "x": encode(p), "kid": id, "alg": "EdDSA", "use": "sig"}
	case *rsa.PublicKey:
		return map[string]string{"kty": "RSA", "n": encode(p.N.Bytes()), "e": encode(big.NewInt(int64(p.E)).Bytes()), "kid": id}
	}
	t.Fatalf("no JWK for a %T", secret)
	return nil
}

func (s *keyServer) set(t testing.TB, secrets ...crypto.Signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = nil
	for _, k := range secrets {
		s.keys = append(s.keys, jwk(t, k))
	}
}

func (s *keyServer) fail(fails bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails = fails
}

// bench is a guard with a clock that the test moves.
type bench struct {
	*auth.Guard
	t       testing.TB
	reg     *prometheus.Registry
	elapsed atomic.Int64
}

func newBench(t testing.TB, cfg auth.Config, dev bool) *bench {
	b := &bench{t: t, reg: prometheus.NewRegistry()}
	var err error
	b.Guard, err = auth.New(cfg, auth.Deps{Dev: dev, Registerer: b.reg, Logger: slog.New(slog.DiscardHandler), Now: func() time.Time {
		return start.Add(time.Duration(b.elapsed.Load()))
	}})
	require.NoError(t, err)
	require.NoError(t, b.Start(context.Background()))
	return b
}

func (b *bench) pass(d time.Duration) { b.elapsed.Add(int64(d)) }

// withKeys believes the keys of a file.
func withKeys(t testing.TB, secrets ...crypto.Signer) auth.Config {
	cfg := auth.DefaultConfig()
	cfg.Issuer = "https://id.example"
	var text []byte
	for _, s := range secrets {
		pem, err := mint.Public(s)
		require.NoError(t, err)
		text = append(text, pem...)
	}
	cfg.KeysFile = filepath.Join(t.TempDir(), "keys.pem")
	require.NoError(t, os.WriteFile(cfg.KeysFile, text, 0o600))
	return cfg
}

const sendReport = "/starling.v1.IngestService/SendReport"

// try calls with the values of the header authorization.
func (b *bench) try(headers ...string) error {
	md := metadata.MD{}
	md.Set("authorization", headers...)
	_, err := b.Server("test").Admit(context.Background(), sendReport, md)
	return err
}

func (b *bench) token(token string) error { return b.try("Bearer " + token) }

func (b *bench) refuses(why auth.Reason, err error) {
	if h, ok := b.t.(interface{ Helper() }); ok {
		h.Helper()
	}
	require.Error(b.t, err)
	require.Equal(b.t, string(why), rpcstatus.ReasonOf(err), "%v", err)
}

// metric is the value of a metric of one series.
func (b *bench) metric(name string) float64 {
	families, err := b.reg.Gather()
	require.NoError(b.t, err)
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	b.t.Fatalf("no metric %s", name)
	return 0
}

// raw makes a token of any header and payload, signed by sign.
func raw(header, payload string, sign func(text string) []byte) string {
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(header)) + "." + encode([]byte(payload))
	return text + "." + encode(sign(text))
}

func payload(c mint.Token) string {
	return fmt.Sprintf(`{"iss":%q,"aud":%q,"sub":%q,"scope":%q,"vehicle":%q,"exp":%d}`, c.Issuer, c.Audience, c.Subject, c.Scope, c.Vehicle, c.Until.Unix())
}

func noSecret(t testing.TB, token string, err error) {
	for _, part := range strings.Split(token, ".") {
		if len(part) > 8 {
			require.NotContains(t, err.Error(), part)
		}
	}
}
