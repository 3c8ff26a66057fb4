package app

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A file with a secret that others can read is named in the log, with its setting,
// whichever it is.
func TestOpenSecretsAreNamed(t *testing.T) {
	for mode, warns := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o604: true, 0o644: true} {
		dir, logged := t.TempDir(), &bytes.Buffer{}
		a := &App{logger: slog.New(slog.NewTextHandler(logged, nil))}
		settings := map[string]*string{
			"auth.page_key_file": &a.cfg.Auth.PageKeyFile, "auth.dev_secret_file": &a.cfg.Auth.DevSecretFile, "auth.service_token_file": &a.cfg.Auth.ServiceTokenFile,
			"tls.key_file": &a.cfg.TLS.KeyFile, "rides.name_keys_file": &a.cfg.Rides.NameKeysFile,
			"kafka.sasl_password_file": &a.cfg.Kafka.SASLPasswordFile, "kafka.tls_key_file": &a.cfg.Kafka.TLSKeyFile,
		}
		for setting, at := range settings {
			*at = filepath.Join(dir, setting)
			require.NoError(t, os.WriteFile(*at, []byte("s3cret"), 0o600))
			require.NoError(t, os.Chmod(*at, mode))
		}
		a.warnOfOpenSecrets()
		for setting := range settings {
			if warns {
				require.Contains(t, logged.String(), "setting="+setting+" ", mode)
			}
		}
		require.Equal(t, warns, logged.Len() > 0, "%s: %s", mode, logged)
		require.NotContains(t, logged.String(), "s3cret")
	}
	(&App{logger: slog.New(slog.DiscardHandler), cfg: DefaultConfig()}).warnOfOpenSecrets()
}
