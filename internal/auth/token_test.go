package auth_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/auth/mint"
)

// A token is refused for each claim that is wrong, with a reason that names it and
// never the token.
func TestTokens(t *testing.T) {
	secret := edKey(t)
	b := newBench(t, withKeys(t, secret, rsaKey()), false)
	ours, other := signer(t, secret), signer(t, edKey(t))
	id := ours.ID()
	sign := func(change ...func(*mint.Token)) string { return sign(t, ours, claims(change...)) }
	good := payload(claims())
	byEd := func(text string) []byte { return ed25519.Sign(secret, []byte(text)) }
	rsaPEM, err := mint.Public(rsaKey())
	require.NoError(t, err)
	rsaID := signer(t, rsaKey()).ID()
	byRSAPublic := func(text string) []byte {
		h := hmac.New(sha256.New, rsaPEM)
		_, _ = h.Write([]byte(text))
		return h.Sum(nil)
	}

	require.NoError(t, b.token(sign()))
	require.NoError(t, b.token(signRS(t, claims())))
	require.NoError(t, b.try("bearer "+sign()), "the scheme has no case")
	require.NoError(t, b.token(raw(`{"alg":"EdDSA","kid":"`+id+`"}`, strings.Replace(good, `"report"`, `["x","report"]`, 1), byEd)), "scopes may be a list")

	for name, c := range map[string]struct {
		token string
		why   auth.Reason
	}{
		"expired":           {sign(func(c *mint.Token) { c.Until = start.Add(-6 * time.Second) }), auth.Expired},
		"not valid yet":     {sign(func(c *mint.Token) { c.From = start.Add(6 * time.Second) }), auth.NotYetValid},
		"other issuer":      {sign(func(c *mint.Token) { c.Issuer = "https://id.example.evil" }), auth.WrongIssuer},
		"other audience":    {sign(func(c *mint.Token) { c.Audience = "another" }), auth.WrongAudience},
		"no issuer":         {raw(`{"alg":"EdDSA","kid":"`+id+`"}`, strings.Replace(good, `"iss"`, `"x"`, 1), byEd), auth.WrongClaim},
		"no audience":       {raw(`{"alg":"EdDSA","kid":"`+id+`"}`, strings.Replace(good, `"aud"`, `"x"`, 1), byEd), auth.WrongClaim},
		"no expiry":         {raw(`{"alg":"EdDSA","kid":"`+id+`"}`, strings.Replace(good, `"exp"`, `"x"`, 1), byEd), auth.WrongClaim},
		"no subject":        {sign(func(c *mint.Token) { c.Subject = "" }), auth.WrongClaim},
		"subject of a line": {sign(func(c *mint.Token) { c.Subject = "a\nb" }), auth.WrongClaim},
		"pattern of two":    {sign(func(c *mint.Token) { c.Vehicle = "a*b*" }), auth.WrongClaim},
		"vehicle no id":     {sign(func(c *mint.Token) { c.Vehicle = "a b" }), auth.WrongClaim},
		"no scope":          {sign(func(c *mint.Token) { c.Scope = "" }), auth.ScopeMissing},
		"other scope":       {sign(func(c *mint.Token) { c.Scope = "dispatch rider reporter" }), auth.ScopeMissing},
		"unknown kid":       {signWith(t, other), auth.UnknownKey},
		"kid is a number":   {raw(`{"alg":"EdDSA","kid":7}`, good, byEd), auth.UnknownKey},
		"no kid of two":     {raw(`{"alg":"EdDSA"}`, good, byEd), auth.UnknownKey},
		"alg none":          {raw(`{"alg":"none","kid":"`+id+`"}`, good, func(string) []byte { return nil }), auth.WrongAlgorithm},
		"alg NONE":          {raw(`{"alg":"NONE","kid":"`+id+`"}`, good, func(string) []byte { return nil }), auth.WrongAlgorithm},
		"no alg":            {raw(`{"kid":"`+id+`"}`, good, byEd), auth.WrongAlgorithm},
		"key confusion":     {raw(`{"alg":"HS256","kid":"`+rsaID+`"}`, good, byRSAPublic), auth.WrongAlgorithm},
		"alg of another":    {raw(`{"alg":"RS256","kid":"`+id+`"}`, good, byEd), auth.WrongAlgorithm},
		"PS256":             {raw(`{"alg":"PS256","kid":"`+rsaID+`"}`, good, byEd), auth.WrongAlgorithm},
		"other signature":   {raw(`{"alg":"EdDSA","kid":"`+id+`"}`, good, func(string) []byte { return make([]byte, 64) }), auth.WrongSignature},
		"signature short":   {raw(`{"alg":"EdDSA","kid":"`+id+`"}`, good, func(string) []byte { return nil }), auth.WrongSignature},
		"crit":              {raw(`{"alg":"EdDSA","kid":"`+id+`","crit":["b64"],"b64":false}`, good, byEd), auth.Malformed},
		"huge":              {strings.Repeat("a", 5000), auth.TooLarge},
		"empty":             {"", auth.Malformed},
		"no JWT":            {"eyJ", auth.Malformed},
		"JSON that is deep": {raw(`{"alg":"EdDSA","kid":"`+id+`"}`, strings.Repeat("[", 900), byEd), auth.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			err := b.token(c.token)
			b.refuses(c.why, err)
			noSecret(t, c.token, err)
		})
	}
	b.refuses(auth.Missing, b.try())
	b.refuses(auth.Malformed, b.try("Basic eDp5"))
	b.refuses(auth.Malformed, b.try("Bearer"))
	b.refuses(auth.Malformed, b.try("Bearer "+sign(), "Bearer "+sign()))
	alarmtest.Raised(t, b.reg, "starling_auth_refusals_total")
}

func signRS(t *testing.T, c mint.Token) string { return sign(t, signer(t, rsaKey()), c) }

func signWith(t *testing.T, k *mint.Key) string { return sign(t, k, claims()) }

// HS256 is for development: with dev alone, with a secret that is long enough.
func TestDevelopmentTokens(t *testing.T) {
	secret := []byte(strings.Repeat("s", 32))
	cfg := auth.DefaultConfig()
	cfg.Issuer, cfg.DevSecretFile = "https://id.example", filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(cfg.DevSecretFile, secret, 0o600))
	require.ErrorContains(t, cfg.Validate(false), "must be left out without dev")
	b := newBench(t, cfg, true)
	token := sign(t, signer(t, secret), claims())
	require.NoError(t, b.token(token))
	b.refuses(auth.Missing, b.try())
	b.refuses(auth.WrongSignature, b.token(sign(t, signer(t, append(secret, 'x')), claims())))

	require.NoError(t, os.WriteFile(cfg.DevSecretFile, secret[:31], 0o600))
	require.ErrorContains(t, b.Reload(t.Context()), "at least 32")

	// A server without the secret does not take HS256 at all.
	b = newBench(t, withKeys(t, edKey(t)), false)
	b.refuses(auth.WrongAlgorithm, b.token(token))
}

// A verified token is remembered, not beyond its expiry.
func TestATokenExpiresWhileItIsRemembered(t *testing.T) {
	secret := edKey(t)
	b := newBench(t, withKeys(t, secret), false)
	token := sign(t, signer(t, secret), claims())
	require.NoError(t, b.token(token))
	require.Equal(t, 1.0, b.metric("starling_auth_known_tokens"))
	b.pass(time.Hour + 4*time.Second)
	require.NoError(t, b.Reload(t.Context()))
	require.NoError(t, b.token(token), "clocks may differ by 5 s")
	b.pass(2 * time.Second)
	b.refuses(auth.Expired, b.token(token))
	b.refuses(auth.Expired, b.token(token))
	require.Zero(t, b.metric("starling_auth_known_tokens"))
}

// What is remembered is bounded.
func TestRememberedTokensAreBounded(t *testing.T) {
	secret := edKey(t)
	cfg := withKeys(t, secret)
	cfg.MaxTokens = 3
	b := newBench(t, cfg, false)
	for n := range 10 {
		require.NoError(t, b.token(sign(t, signer(t, secret), claims(func(c *mint.Token) { c.Subject = fmt.Sprint("phone-", n) }))))
	}
	require.Equal(t, 3.0, b.metric("starling_auth_known_tokens"))
}

// A key that is removed is refused after one read of the keys, remembered tokens
// included; a new one is believed.
func TestKeysAreRotated(t *testing.T) {
	first, second := edKey(t), edKey(t)
	server := newKeyServer(t, first, rsaKey())
	cfg := auth.DefaultConfig()
	cfg.Issuer, cfg.JWKSURL = "https://id.example", server.URL
	b := newBench(t, cfg, false)
	old, young := sign(t, signer(t, first), claims()), sign(t, signer(t, second), claims())
	require.NoError(t, b.token(old))
	require.NoError(t, b.token(signRS(t, claims())))
	b.refuses(auth.UnknownKey, b.token(young))

	server.set(t, second, rsaKey())
	require.NoError(t, b.token(old), "before it is read")
	require.NoError(t, b.Reload(t.Context()))
	b.refuses(auth.UnknownKey, b.token(old))
	require.Equal(t, 1.0, b.metric("starling_auth_known_tokens"), "that of the RSA key")
	require.NoError(t, b.token(young))
	require.NoError(t, b.token(signRS(t, claims())))

	// The same id with another key is another key.
	entry := jwk(t, first)
	entry["kid"] = signer(t, second).ID()
	server.mu.Lock()
	server.keys[0] = entry
	server.mu.Unlock()
	require.NoError(t, b.Reload(t.Context()))
	b.refuses(auth.WrongSignature, b.token(young))
}

// When the keys can't be read, the last ones count for as long as is set, and no
// longer.
func TestTheLastKeysCountForAWhile(t *testing.T) {
	secret := edKey(t)
	server := newKeyServer(t, secret)
	cfg := auth.DefaultConfig()
	cfg.Issuer, cfg.JWKSURL = "https://id.example", server.URL
	b := newBench(t, cfg, false)
	token := sign(t, signer(t, secret), claims(func(c *mint.Token) { c.Until = start.Add(5 * time.Hour) }))
	require.NoError(t, b.token(token))
	server.fail(true)
	b.pass(59 * time.Minute)
	require.ErrorContains(t, b.Reload(t.Context()), "503")
	require.NoError(t, b.token(token))
	require.Equal(t, 1.0, b.metric("starling_auth_key_read_failures_total"))
	require.Equal(t, 59*60.0, b.metric("starling_auth_keys_age_seconds"))
	alarmtest.Raised(t, b.reg, "starling_auth_key_read_failures_total")
	alarmtest.RaisedTo(t, b.reg, "starling_auth_keys_age_seconds", func(age float64) bool { return age > cfg.RefreshInterval.Seconds() })
	b.pass(2 * time.Minute)
	require.Error(t, b.Reload(t.Context()))
	b.refuses(auth.KeysUnavailable, b.token(token))
	server.fail(false)
	require.NoError(t, b.Reload(t.Context()))
	require.NoError(t, b.token(token))
}

// A file of keys is refused for each thing that it must not hold.
func TestKeyFiles(t *testing.T) {
	secret := edKey(t)
	private, err := mint.Private(secret)
	require.NoError(t, err)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	smallPEM, err := mint.Public(small)
	require.NoError(t, err)
	public, err := mint.Public(secret)
	require.NoError(t, err)
	for name, c := range map[string]struct{ text, want string }{
		"empty":           {"", "there is no key"},
		"private":         {string(private), "private key"},
		"small":           {string(smallPEM), "at least 2048"},
		"twice":           {string(public) + string(public), "two keys"},
		"certificate":     {"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "must be PUBLIC KEY"},
		"no JWKS":         {`{"keys":7}`, "no JWKS"},
		"only to encrypt": {`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","key_ops":["encrypt"]}]}`, "there is no key"},
		"only for others": {`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},{"kty":"RSA","use":"enc","n":"AA","e":"AQAB"}]}`, "there is no key"},
		"private JWK":     {`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"AA","d":"AA"}]}`, "private key"},
		"symmetric":       {`{"keys":[{"kty":"oct","kid":"k","k":"c2VjcmV0"}]}`, "there is no key"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := withKeys(t, secret)
			b := newBench(t, cfg, false)
			require.NoError(t, os.WriteFile(cfg.KeysFile, []byte(c.text), 0o600))
			require.ErrorContains(t, b.Reload(t.Context()), c.want)
			require.NoError(t, b.token(sign(t, signer(t, secret), claims())), "the last keys count")
		})
	}
}

// Settings that would let in whom nobody means to are refused.
func TestConfig(t *testing.T) {
	for _, c := range []struct {
		change func(*auth.Config)
		want   string
	}{
		{func(c *auth.Config) { c.JWKSURL = "http://id.example/keys" }, "jwks_url"},
		{func(c *auth.Config) { c.JWKSURL = "https://user:word@id.example/keys" }, "jwks_url"},
		{func(c *auth.Config) { c.KeysFile = "x" }, "issuer"},
		{func(c *auth.Config) { c.KeysFile, c.Issuer, c.Audience = "x", "y", "" }, "audience"},
		{func(c *auth.Config) { c.Leeway = time.Hour }, "leeway"},
		{func(c *auth.Config) { c.KeepKeys = time.Second }, "keep_keys"},
		{func(c *auth.Config) { c.MaxTokens = 0 }, "max_tokens"},
		{func(c *auth.Config) { c.RefreshInterval = 0 }, "refresh_interval"},
	} {
		cfg := auth.DefaultConfig()
		c.change(&cfg)
		require.ErrorContains(t, cfg.Validate(false), c.want)
	}
	cfg := auth.DefaultConfig()
	require.NoError(t, cfg.Validate(false))
}

// FuzzToken has nothing but signed tokens be believed, whatever is sent.
func FuzzToken(f *testing.F) {
	secret := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	key := signer(f, secret)
	good := sign(f, key, claims())
	b := newBench(f, withKeys(f, secret), false)
	f.Add(good)
	f.Add(raw(`{"alg":"none"}`, payload(claims()), func(string) []byte { return nil }))
	f.Add(raw(`{"alg":"EdDSA","kid":null}`, `{"aud":[],"exp":1e400}`, func(text string) []byte { return ed25519.Sign(secret, []byte(text)) }))
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		err := b.token(token)
		if err == nil && strings.TrimSpace(token) != good {
			t.Fatalf("believed %q", token)
		}
	})
}

func BenchmarkKnownToken(b *testing.B)    { benchmarkToken(b, edKey(b), true) }
func BenchmarkNewTokenEdDSA(b *testing.B) { benchmarkToken(b, edKey(b), false) }
func BenchmarkNewTokenRS256(b *testing.B) { benchmarkToken(b, rsaKey(), false) }

// BenchmarkMayReport is what identity costs a report on a stream whose vehicle is not
// the last one's.
func BenchmarkMayReport(b *testing.B) {
	c := &auth.Caller{Issuer: "us", Subject: "gateway", Scopes: auth.Report, Vehicle: "vehicle-*"}
	b.ReportAllocs()
	for b.Loop() {
		if r := c.MayReport("vehicle-0001-0042"); r != nil {
			b.Fatal(r)
		}
	}
}

// benchmarkToken is what a unary call pays for its token.
func benchmarkToken(b *testing.B, secret crypto.Signer, known bool) {
	cfg := withKeys(b, secret)
	cfg.MaxTokens = 1
	guard := newBench(b, cfg, false)
	k := signer(b, secret)
	tokens := []string{sign(b, k, claims()), sign(b, k, claims(func(c *mint.Token) { c.Subject = "phone-2" }))}
	n := 0
	before := cpuTime(b)
	for b.Loop() {
		if !known {
			n++
		}
		if err := guard.token(tokens[n%2]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
}

// cpuTime is what the process has used of the processors: on a shared machine it shows
// more than the time that has passed.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
