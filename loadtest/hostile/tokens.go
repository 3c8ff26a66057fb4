package hostile

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/auth/mint"
)

// issuer is the claim iss of a run's tokens.
const issuer = "bench-hostile"

// tokens are those of a run: who is honest and who attacks have names of their own,
// as users have. Without tokens they would share what one address may use.
type tokens struct {
	dir string // holds the secret
	key *mint.Key
}

func newTokens(workDir string) (*tokens, error) {
	t := &tokens{}
	var err error
	if t.dir, err = os.MkdirTemp(workDir, "starling-tokens-"); err != nil {
		return nil, fmt.Errorf("make a folder for the secret of tokens: %w", err)
	}
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	secret := []byte(hex.EncodeToString(raw))
	if err = os.WriteFile(t.secretFile(), secret, 0o600); err == nil {
		t.key, err = mint.NewKey(secret)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(t.dir))
	}
	return t, nil
}

func (t *tokens) secretFile() string { return filepath.Join(t.dir, "secret") }

// args have a process ask for the run's tokens.
func (t *tokens) args() []string {
	return []string{"--auth-dev-secret-file", t.secretFile(), "--auth-issuer", issuer}
}

// of returns a token of somebody.
func (t *tokens) of(subject, scope string) (string, error) {
	return t.key.Sign(mint.Token{
		Issuer: issuer, Audience: auth.DefaultConfig().Audience, Subject: subject, Scope: scope, Vehicle: "*", Until: time.Now().Add(24 * time.Hour),
	})
}

func (t *tokens) remove() { _ = os.RemoveAll(t.dir) }

// bearer puts a token into calls. It implements credentials.PerRPCCredentials.
type bearer string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: the server is on
// loopback.
func (bearer) RequireTransportSecurity() bool { return false }

// as opens a connection to one of the process's servers for somebody.
func (t *target) as(subject, scope, addr string, extra ...grpc.DialOption) (*grpc.ClientConn, error) {
	token, err := t.tokens.of(subject, scope)
	if err != nil {
		return nil, err
	}
	return t.conns.Dial(addr, append(extra, grpc.WithPerRPCCredentials(bearer(token)))...)
}
