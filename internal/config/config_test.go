package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/config"
)

type section struct {
	Wait  time.Duration `koanf:"wait" help:"How long."`
	Hosts []string      `koanf:"hosts" help:"Where."`
}

type sample struct {
	Name     string        `koanf:"name" help:"Who."`
	Password config.Secret `koanf:"password" help:"Hidden."`
	Count    int           `koanf:"count" help:"How many."`
	Share    float64       `koanf:"share" help:"How much."`
	On       bool          `koanf:"on" help:"Whether."`
	Deep     section       `koanf:"deep_section" help:"-"`
}

func defaults() sample {
	return sample{Name: "a", Count: 3, Deep: section{Wait: time.Second, Hosts: []string{"x"}}}
}

func load(t *testing.T, yaml string, env []string, args ...string) (sample, error) {
	t.Helper()
	cfg := defaults()
	src := config.Sources{Environ: env}
	if yaml != "" {
		src.File = filepath.Join(t.TempDir(), "c.yaml")
		require.NoError(t, os.WriteFile(src.File, []byte(yaml), 0o600))
	}
	src.Flags = pflag.NewFlagSet("t", pflag.ContinueOnError)
	config.RegisterFlags(src.Flags, config.Settings(cfg))
	require.NoError(t, src.Flags.Parse(args))
	err := config.Load(&cfg, src)
	return cfg, err
}

func TestLaterSourceWins(t *testing.T) {
	cfg, err := load(t, "", nil)
	require.NoError(t, err)
	require.Equal(t, defaults(), cfg)

	cfg, err = load(t, "name: file\ncount: 4\nshare: 0.5\ndeep_section:\n  wait: 2s\n  hosts: [p, q]\n",
		[]string{"STARLING_COUNT=5", "STARLING_DEEP_SECTION_HOSTS=r,s", "STARLING_ON=true", "HOME=/x"},
		"--deep-section-hosts=t", "--count=6")
	require.NoError(t, err)
	require.Equal(t, sample{Name: "file", Count: 6, Share: 0.5, On: true, Deep: section{Wait: 2 * time.Second, Hosts: []string{"t"}}}, cfg)
}

func TestAllFaultsInOneError(t *testing.T) {
	_, err := load(t, "nmae: x\nwait: 3s\ncount: many\ndeep_section:\n  wait: 5\n", []string{"STARLING_COLOUR=red", "STARLING_SHARE=half"})
	for _, part := range []string{`unknown setting "nmae"`, `"wait" (did you mean "deep_section.wait"?)`, "STARLING_COLOUR", `count is "many": must be a whole number`, `STARLING_SHARE is "half": must be a number`, "deep_section.wait is 5, which has no unit: must be a duration such as 1500ms or 30s"} {
		require.ErrorContains(t, err, part)
	}
	for _, foreign := range []string{"strconv", "decoding failed", "mapstructure", "parse value"} {
		require.NotContains(t, err.Error(), foreign, "a library's words")
	}
}

func TestPrintReadsBackAndHidesSecrets(t *testing.T) {
	cfg := defaults()
	cfg.Deep.Hosts = []string{"m", "n"}
	var out bytes.Buffer
	require.NoError(t, config.Print(&out, cfg))
	back, err := load(t, out.String(), nil)
	require.NoError(t, err)
	require.Equal(t, cfg, back)

	cfg.Password = "hunter2"
	out.Reset()
	require.NoError(t, config.Print(&out, cfg))
	require.NotContains(t, out.String(), "hunter2")
	require.Contains(t, out.String(), "# password is set and not shown")
	// What is printed does not load as a password.
	back, err = load(t, out.String(), nil)
	require.NoError(t, err)
	require.Empty(t, back.Password)
}

// A secret loads from every source and shows in nothing but Reveal.
func TestSecret(t *testing.T) {
	for name, from := range map[string]func() (sample, error){
		"file":        func() (sample, error) { return load(t, "password: hunter2\n", nil) },
		"environment": func() (sample, error) { return load(t, "", []string{"STARLING_PASSWORD=hunter2"}) },
		"flag":        func() (sample, error) { return load(t, "", nil, "--password=hunter2") },
	} {
		cfg, err := from()
		require.NoError(t, err, name)
		require.Equal(t, "hunter2", cfg.Password.Reveal(), name)
		var shown bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			_, _ = fmt.Fprintf(&shown, verb+" "+verb, cfg, cfg.Password)
		}
		require.NoError(t, json.NewEncoder(&shown).Encode(cfg))
		for _, handler := range []slog.Handler{slog.NewTextHandler(&shown, nil), slog.NewJSONHandler(&shown, nil)} {
			slog.New(handler).Info("starting", "config", cfg, "password", cfg.Password)
		}
		require.NoError(t, config.WriteReference(&shown, cfg))
		require.NotContains(t, shown.String(), "hunter2", name)
		require.NotContains(t, shown.String(), fmt.Sprintf("%x", "hunter2"), name)
	}
}

// What Kubernetes sets for services whose names begin as ours stops nothing; a
// setting that is written wrong still does.
func TestServiceLinksAreNoSettings(t *testing.T) {
	links := []string{
		"STARLING_SERVICE_HOST=10.0.0.11", "STARLING_SERVICE_PORT=7600", "STARLING_SERVICE_PORT_GRPC=7600", "STARLING_SERVICE_PORT_JSON_API=7603",
		"STARLING_PORT=tcp://10.0.0.11:7600", "STARLING_PORT_7600_TCP=tcp://10.0.0.11:7600", "STARLING_PORT_7600_TCP_PROTO=tcp",
		"STARLING_PORT_7600_TCP_PORT=7600", "STARLING_PORT_7600_TCP_ADDR=10.0.0.11", "STARLING_PORT_53_UDP=udp://10.0.0.11:53",
		"STARLING_INGEST_SERVICE_HOST=fd00::1", "STARLING_INGEST_PORT=tcp://fd00::1:7600", "STARLING_INGEST_PORT_7600_TCP=tcp://[fd00::1]:7600",
	}
	cfg, err := load(t, "", links)
	require.NoError(t, err)
	require.Equal(t, defaults(), cfg)
	for _, typo := range []string{
		"STARLING_SERVER_PORT=7600", "STARLING_PORT=7600", "STARLING_PORT=tcp://nowhere", "STARLING_PORT=http://10.0.0.1:80", "STARLING_SERVICE_HOST=localhost:1",
		"STARLING_SERVICE_PORT=many", "STARLING_COUNTS=3", "STARLING_PORT_7600_TCP_ADDR=", "STARLING_PORT_7600_TCP_PROTO=http", "STARLING_SERVICE_PORT=70000",
	} {
		_, err := load(t, "", append(links, typo))
		name, _, _ := strings.Cut(typo, "=")
		require.ErrorContains(t, err, "environment: unknown setting "+name, typo)
	}
}
