package cli

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/cmd/starling/app"
)

// Keys, certificates and tokens that the command makes are those that servers and
// commands take: the whole way of a first deployment.
func TestKeysCertificatesAndTokens(t *testing.T) {
	dir := t.TempDir()
	keys, secured := filepath.Join(dir, "keys"), filepath.Join(dir, "tls")
	must := func(args ...string) string {
		t.Helper()
		got := runCLI(t, t.Context(), "", args...)
		require.Equal(t, exitOK, got.code, "%v: %s", args, got.err)
		return got.out
	}
	must("token", "keygen", "--out", keys)
	must("token", "certs", "--out", secured)
	info, err := os.Stat(filepath.Join(keys, "signing.pem"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	again := runCLI(t, t.Context(), "", "token", "keygen", "--out", keys)
	require.Equal(t, exitUsage, again.code)
	require.Contains(t, again.err, "not overwritten")

	token := func(scope string) string {
		file := filepath.Join(dir, "token-"+scope)
		out := must("token", "--key", filepath.Join(keys, "signing.pem"), "--subject", "test", "--scope", scope, "--vehicle", "sim-*")
		require.NoError(t, os.WriteFile(file, []byte(out), 0o600))
		return "--token-file=" + file
	}
	cfg := app.DefaultConfig()
	cfg.Partitions, cfg.Local.Directory = 2, filepath.Join(dir, "log")
	cfg.Server.IngestListen, cfg.Server.MatcherListen, cfg.Server.JSONListen, cfg.Server.AdminListen = "127.0.0.1:0", "127.0.0.1:0", "", ""
	cfg.Auth.KeysFile, cfg.Auth.Issuer, cfg.Auth.PageKeyFile = filepath.Join(keys, "keys.json"), "starling-dev", filepath.Join(keys, "page.key")
	cfg.TLS.CertFile, cfg.TLS.KeyFile = filepath.Join(secured, "cert.pem"), filepath.Join(secured, "key.pem")
	process, err := app.New(cfg, app.AllRoles(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- process.Run(ctx) }()
	defer func() { cancel(); require.NoError(t, <-ended) }()
	select {
	case <-process.Ready():
	case err := <-ended:
		t.Fatal(err)
	case <-time.After(time.Minute):
		t.Fatal("not ready within a minute")
	}

	ca := "--server-ca-file=" + filepath.Join(secured, "ca.pem")
	ask := []string{"nearest", "--at", "48,16", "--timeout", "20s", "--matcher", process.Addr(app.Matcher)}
	must(append(ask, ca, token("dispatch"))...)
	got := runCLI(t, t.Context(), "", append(ask, ca)...)
	require.NotEqual(t, exitOK, got.code)
	require.Contains(t, got.err, "a token is needed")
	got = runCLI(t, t.Context(), "", append(ask, ca, token("report"))...)
	require.NotEqual(t, exitOK, got.code)
	require.Contains(t, got.err, "lacks a scope")
	require.NotEqual(t, exitOK, runCLI(t, t.Context(), "", append(ask, token("dispatch"))...).code, "without TLS")
}

func TestTokenArguments(t *testing.T) {
	for _, c := range []struct {
		args  []string
		words string
	}{
		{[]string{"--scope", "report"}, "--subject is missing"},
		{[]string{"--subject", "x"}, "--scope is missing"},
		{[]string{"--subject", "x", "--scope", "reports"}, `--scope has "reports"`},
		{[]string{"--subject", "x", "--scope", "report", "--valid", "-1s"}, "--valid"},
		{[]string{"--subject", "x", "--scope", "report", "--vehicle", "a*b*"}, `--vehicle is "a*b*": must be a vehicle id, or a pattern of one with a single *`},
		{[]string{"--subject", "x", "--scope", "report", "--vehicle", "a b"}, "--vehicle"},
		{[]string{"--subject", "a\nb", "--scope", "report"}, "--subject"},
		{[]string{"--subject", "x", "--scope", "report"}, "one of --key"},
		{[]string{"--subject", "x", "--scope", "report", "--key", "/nonexistent"}, "/nonexistent"},
	} {
		got := runCLI(t, t.Context(), "", append([]string{"token"}, c.args...)...)
		require.Equal(t, exitUsage, got.code, "%v", c.args)
		require.Contains(t, got.err, c.words)
	}
}
