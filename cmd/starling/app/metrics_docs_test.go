package app

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/starling-fleet/starling/internal/auth/mint"
	"github.com/starling-fleet/starling/internal/freeport"
)

var update = flag.Bool("update", false, "write the generated documents anew")

// metric is a row of docs/metrics.md.
type metric struct {
	name, help string
	labels     []string
	kind       string
}

// collect adds what processes of every kind export.
func collect(t *testing.T, all map[string]metric, cfg Config, roles ...Role) {
	t.Helper()
	cfg.Dev = true
	addrs, err := freeport.Addrs(5)
	require.NoError(t, err)
	cfg.Server.IngestListen, cfg.Server.MatcherListen, cfg.Server.JSONListen, cfg.Server.AdminListen, cfg.Server.HistoryListen = addrs[0], addrs[1], addrs[2], addrs[3], addrs[4]
	a, err := New(cfg, roles, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	defer func() { cancel(); require.NoError(t, <-ended) }()
	if len(roles) == 1 && roles[0] == Fanout {
		// It has no matchers, so it never serves; it has its metrics when it listens.
		require.Eventually(t, func() bool {
			answer, err := http.Get("http://" + cfg.Server.AdminListen + "/readyz")
			return err == nil && answer.Body.Close() == nil
		}, time.Minute, 10*time.Millisecond)
	} else {
		select {
		case <-a.Ready():
		case err := <-ended:
			ended <- err
			require.NoError(t, err)
		case <-time.After(2 * time.Minute):
			require.FailNow(t, "not ready")
		}
	}
	families, err := a.registry.Gather()
	require.NoError(t, err)
	problems, err := promlint.NewWithMetricFamilies(ours(families)).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
	kinds := map[string]string{}
	for _, f := range families {
		kinds[f.GetName()] = strings.ToLower(f.GetType().String())
	}
	for name, m := range describe(a.registry) {
		switch m.kind = kinds[name]; { // unknown while no method or reason has been met
		case m.kind != "":
		case strings.HasSuffix(name, "_bytes"):
			m.kind = "gauge"
		case strings.HasSuffix(name, "_total"):
			m.kind = "counter"
		case strings.HasSuffix(name, "_seconds"):
			m.kind = "histogram"
		default:
			require.Fail(t, "a metric without a value: of which type is it?", name)
		}
		all[name] = m
	}
}

func ours(families []*dto.MetricFamily) []*dto.MetricFamily {
	return slices.DeleteFunc(slices.Clone(families), func(f *dto.MetricFamily) bool { return !strings.HasPrefix(f.GetName(), "starling_") })
}

var descOf = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: ("(?:[^"\\]|\\.)*"), (?:unit: "[^"]*", )?constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

// describe reads a registry's descriptions, those of metrics without a value included.
func describe(r *prometheus.Registry) map[string]metric {
	descs := make(chan *prometheus.Desc)
	go func() { r.Describe(descs); close(descs) }()
	var texts []string // to the end first: the registry is locked meanwhile
	for d := range descs {
		texts = append(texts, d.String())
	}
	all := map[string]metric{}
	for _, text := range texts {
		parts := descOf.FindStringSubmatch(text)
		if parts == nil {
			panic("a description reads otherwise: " + text)
		}
		if strings.HasPrefix(parts[1], "go_") || strings.HasPrefix(parts[1], "process_") {
			continue
		}
		m := all[parts[1]]
		m.name = parts[1]
		if _, err := fmt.Sscanf(parts[2], "%q", &m.help); err != nil {
			panic(err)
		}
		for _, label := range regexp.MustCompile(`[a-z_]+`).FindAllString(regexp.MustCompile(`"[^"]*"`).ReplaceAllString(parts[3], "")+" "+parts[4], -1) {
			if !slices.Contains(m.labels, label) {
				m.labels = append(m.labels, label)
			}
		}
		all[m.name] = m
	}
	return all
}

// proveIdentity has a process ask for tokens and secure its connections.
func proveIdentity(t *testing.T, cfg *Config) {
	t.Helper()
	_, secret, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	public, err := mint.Public(secret)
	require.NoError(t, err)
	authority, err := mint.NewAuthority("test", time.Now().Add(time.Hour))
	require.NoError(t, err)
	cert, key, err := authority.Certificate("127.0.0.1", []string{"127.0.0.1"})
	require.NoError(t, err)
	dir := t.TempDir()
	cfg.Auth.KeysFile, cfg.Auth.Issuer, cfg.TLS.CertFile, cfg.TLS.KeyFile = dir+"/keys.pem", "test", dir+"/cert.pem", dir+"/key.pem"
	for path, data := range map[string][]byte{cfg.Auth.KeysFile: public, cfg.TLS.CertFile: cert, cfg.TLS.KeyFile: key} {
		require.NoError(t, os.WriteFile(path, data, 0o600))
	}
}

// docs/metrics.md lists what every kind of process exports; `make docs` writes it.
func TestDocsListEveryMetric(t *testing.T) {
	all := map[string]metric{}
	cfg := DefaultConfig()
	cfg.Partitions, cfg.Local.Directory = 2, t.TempDir()+"/log"
	cfg.History.LakeDir = t.TempDir()
	proveIdentity(t, &cfg)
	cfg.Redis.Addrs, cfg.Redis.Positions = []string{"127.0.0.1:1"}, true // nobody listens there
	collect(t, all, cfg, AllRoles()...)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(time.Second))
	require.NoError(t, err)
	defer cluster.Close()
	cfg.Kafka.Brokers, cfg.Kafka.ReplicationFactor = cluster.ListenAddrs(), 1
	collect(t, all, cfg, AllRoles()...)
	cfg = DefaultConfig()
	cfg.Matcher.Regions = []string{"west=841e149ffffffff", "east=rest"}
	cfg.Fanout.Replicas = []string{"west=127.0.0.1:1", "east=127.0.0.1:1"}
	collect(t, all, cfg, Fanout)

	var b strings.Builder
	b.WriteString(`# Metrics

<!-- Generated by ` + "`make docs`" + `: do not edit. -->

What ` + "`/metrics`" + ` exports, in Prometheus's text format: a process has the rows of its roles, its log and its servers. Beside these there are the usual ` + "`go_*` and `process_*`" + `. What to do about those that are alarms is in [runbook.md](runbook.md). Units are in the names; no label names a vehicle.
`)
	sections := map[string][]metric{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		of, _, _ := strings.Cut(strings.TrimPrefix(name, "starling_"), "_")
		switch {
		case !strings.HasPrefix(name, "starling_"):
			of = "grpc (of the library)"
		case of == "build" || of == "reloads":
			of = "process"
		}
		require.NotEmpty(t, all[name].help, name)
		sections[of] = append(sections[of], all[name])
	}
	for _, of := range slices.Sorted(maps.Keys(sections)) {
		fmt.Fprintf(&b, "\n## %s\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n", of)
		for _, m := range sections[of] {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, m.kind, strings.Join(m.labels, ", "), strings.ReplaceAll(m.help, "|", "\\|"))
		}
	}
	const path = "../../../docs/metrics.md"
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o644))
	}
	stored, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(stored), b.String(), "run `make docs`")
}
