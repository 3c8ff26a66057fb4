package auth_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/auth"
)

// Claims count exactly as they are written. The standard decoder, which takes them in
// any letters and the last of two, would believe a token that its issuer means
// otherwise.
func TestClaimsAreTakenAsWritten(t *testing.T) {
	secret := edKey(t)
	b := newBench(t, withKeys(t, secret), false)
	id := signer(t, secret).ID()
	signed := func(payload string) string {
		return raw(`{"alg":"EdDSA","kid":"`+id+`"}`, payload, func(text string) []byte { return ed25519.Sign(secret, []byte(text)) })
	}
	good := payload(claims())
	require.NoError(t, b.token(signed(good)))
	require.NoError(t, b.token(signed(strings.Replace(good, `{`, `{"VEHICLES":["x"],"jti":"7","Nonce":{"exp":1},`, 1))), "others are for other servers")
	for name, payload := range map[string]string{
		"instead":            strings.Replace(good, `"vehicle"`, `"Vehicle"`, 1),
		"beside, behind":     strings.Replace(good, `}`, `,"VEHICLE":"*"}`, 1),
		"beside, before":     strings.Replace(good, `{`, `{"Exp":99999999999,`, 1),
		"by Unicode":         strings.Replace(good, `{`, `{"\u017fcope":"dispatch",`, 1), // long s, which folds to s
		"escaped and twice":  strings.Replace(good, `}`, `,"\u0076ehicle":"*"}`, 1),
		"twice":              strings.Replace(good, `}`, `,"scope":"dispatch report"}`, 1),
		"a registered twice": strings.Replace(good, `{`, `{"exp":1,`, 1),
	} {
		t.Run(name, func(t *testing.T) { b.refuses(auth.WrongClaim, b.token(signed(payload))) })
	}
	for name, payload := range map[string]string{
		"list": `[]`, "text": `"x"`, "null": `null`, "open": `{"iss":"x"`, "behind it": good + `x`, "two": good + good,
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, codes.Unauthenticated, status.Code(b.token(signed(payload))))
		})
	}
}

// A key of a JWKS that can't be used is passed over, counted and logged once; the
// others are refreshed.
func TestABadKeyOfAJWKSIsPassedOver(t *testing.T) {
	first, second := edKey(t), edKey(t)
	var entries []any
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": entries})
	}))
	defer server.Close()
	cfg := auth.DefaultConfig()
	cfg.Issuer, cfg.JWKSURL = "https://id.example", server.URL
	var logged bytes.Buffer
	b := &bench{t: t, reg: prometheus.NewRegistry()}
	var err error
	b.Guard, err = auth.New(cfg, auth.Deps{Registerer: b.reg, Logger: slog.New(slog.NewTextHandler(&logged, nil)), Now: func() time.Time { return start }})
	require.NoError(t, err)

	bad := []any{
		map[string]string{"kty": "OKP", "crv": "Ed25519", "kid": "short", "x": "AA"},
		map[string]string{"kty": "RSA", "kid": "garbled", "n": "!", "e": "AQAB"},
		map[string]string{"kty": "OKP", "crv": "Ed25519", "kid": "private", "x": jwk(t, first)["x"], "d": "AA"},
		map[string]any{"kty": 7},
		"no object",
	}
	twin := jwk(t, second)
	twin["kid"] = signer(t, first).ID() // another key under the id of the first
	entries = append(append([]any{bad[0], jwk(t, first)}, bad[1:]...), twin)
	require.NoError(t, b.Start(context.Background()))
	require.NoError(t, b.token(sign(t, signer(t, first), claims())))
	require.Equal(t, 1.0, b.metric("starling_auth_keys"))
	require.Equal(t, 6.0, b.metric("starling_auth_keys_passed_over_total"))
	for _, want := range []string{"short", "garbled", "private key", "no JWK", "two keys"} {
		require.Contains(t, logged.String(), want)
	}

	logged.Reset()
	entries = append(entries, jwk(t, second))
	require.NoError(t, b.Reload(t.Context()))
	require.NoError(t, b.token(sign(t, signer(t, second), claims())), "what is new counts all the same")
	require.Equal(t, 12.0, b.metric("starling_auth_keys_passed_over_total"))
	require.NotContains(t, logged.String(), "passed over", "it was logged before")
	require.Zero(t, b.metric("starling_auth_key_read_failures_total"))
}

// A token is found in a URL by the parameter's name and by what it looks like.
func TestTokensInURLs(t *testing.T) {
	secret := edKey(t)
	b := newBench(t, withKeys(t, secret), false)
	guard := b.HTTP("test")
	guard.Need = func(string) (auth.Scopes, bool) { return auth.Report, false }
	h := guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	ask := func(query string) int {
		r := httptest.NewRequest(http.MethodGet, "/config?"+query, nil)
		r.Header.Set("Authorization", "Bearer "+sign(t, signer(t, secret), claims()))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	require.Equal(t, http.StatusOK, ask("a=b&bear=er&x=bearer"))
	for _, query := range []string{
		"access_token=x", "Token=x", "%74oken=x", "q=Bearer%20xyz", "q=bearer+xyz", "q=%20BEARER%20x", "a=b;jwt=x", "a=1;q=Bearer%20xyz", "q=eyJh.b.c", "q=%zz&token=x",
	} {
		require.Equal(t, http.StatusBadRequest, ask(query), query)
	}
}

// FuzzClaims has no claim count that stands in a token otherwise than as it is
// written: whoever is let in by a payload is whom a reader of exact names finds in it.
func FuzzClaims(f *testing.F) {
	secret := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	b := newBench(f, withKeys(f, secret), false)
	id := signer(f, secret).ID()
	f.Add(payload(claims()))
	f.Add(strings.Replace(payload(claims()), `{`, `{"Exp":99999999999,`, 1))
	f.Add(strings.Replace(payload(claims()), `}`, `,"\u0076ehicle":"*","scope":["dispatch"]}`, 1))
	f.Add(`{"iss":"https://id.example","aud":["starling"],"sub":"x","exp":1e12,"scope":"report","vehicle":null}`)
	f.Fuzz(func(t *testing.T, text string) {
		token := raw(`{"alg":"EdDSA","kid":"`+id+`"}`, text, func(text string) []byte { return ed25519.Sign(secret, []byte(text)) })
		if b.token(token) != nil {
			return
		}
		var exact map[string]any
		if err := json.Unmarshal([]byte(text), &exact); err != nil {
			t.Fatalf("believed what is no JSON: %q", text)
		}
		if exact["iss"] != "https://id.example" || exact["sub"] == nil || exact["exp"] == nil {
			t.Fatalf("believed %q", text)
		}
		for name := range exact {
			for _, ours := range []string{"iss", "sub", "aud", "exp", "nbf", "scope", "vehicle"} {
				if name != ours && strings.EqualFold(name, ours) {
					t.Fatalf("believed %q", text)
				}
			}
		}
	})
}
