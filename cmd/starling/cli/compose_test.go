package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/stretchr/testify/require"
)

// Every command line and every setting of docker-compose.yml is one that the binary
// takes. Whether Docker takes the file is not looked at here.
func TestComposeFile(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docker-compose.yml"))
	require.NoError(t, err)
	file, err := yaml.Parser().Unmarshal(text)
	require.NoError(t, err)
	run := func(environ []string, args ...string) (int, string) {
		var out bytes.Buffer
		code := Main(t.Context(), args, IO{In: strings.NewReader(""), Out: &out, Err: &out, Environ: environ})
		return code, out.String()
	}
	ours := 0
	for name, service := range file["services"].(map[string]any) {
		s := service.(map[string]any)
		if s["image"] != "starling" {
			continue
		}
		ours++
		var environ []string
		if all, ok := s["environment"].(map[string]any); ok {
			for key, value := range all {
				environ = append(environ, key+"="+value.(string))
			}
		}
		command, _ := s["command"].(string)
		code, printed := run(environ, append(strings.Fields(command), "--help")...)
		require.Equal(t, exitOK, code, "%s: %s", name, printed)
		code, printed = run(environ, "config", "check")
		require.Equal(t, exitOK, code, "%s: %s", name, printed)
	}
	require.Equal(t, 8, ours)
}

// A deployment's files are made once, all or none.
func TestDeploymentFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	first := runCLI(t, t.Context(), "", "token", "deployment", "--out", dir, "--host", "ingest,matcher")
	require.Equal(t, exitOK, first.code, first.err)
	made, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, f := range made {
		names = append(names, f.Name())
		info, err := f.Info()
		require.NoError(t, err)
		public := map[string]bool{"keys.pem": true, "keys.json": true, "ca.pem": true, "cert.pem": true}[f.Name()]
		require.True(t, public || info.Mode().Perm() == 0o600, "%s has %v", f.Name(), info.Mode())
	}
	require.Equal(t, []string{
		"ca.pem", "cert.pem", "dispatch.token", "key.pem", "keys.json", "keys.pem", "metrics.token", "names.key", "page.key", "report.token", "service.token", "signing.pem",
	}, names)
	before, err := os.ReadFile(filepath.Join(dir, "key.pem"))
	require.NoError(t, err)
	again := runCLI(t, t.Context(), "", "token", "deployment", "--out", dir)
	require.Equal(t, exitOK, again.code, again.err)
	after, err := os.ReadFile(filepath.Join(dir, "key.pem"))
	require.NoError(t, err)
	require.Equal(t, before, after)
}
