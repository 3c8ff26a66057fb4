package e2e

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/cmd/starling/cli"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/kafkatest"
	"github.com/starling-fleet/starling/schemas/topics"
)

type appended chan error

func (c appended) Done(_ int64, err error) { c <- err }

// An operator's commands work beside a tracker that runs.
func TestOperatingOnKafka(t *testing.T) {
	cfg := app.DefaultConfig()
	cfg.Partitions = 2
	cfg.Kafka.Brokers = kafkatest.Shared(t).Brokers()
	cfg.Kafka.TopicPrefix = "operations-"
	cfg.Tracker.CheckpointInterval = 200 * time.Millisecond
	tracking := start(t, cfg, app.Tracker)
	command := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		args = append(args, "--kafka-brokers", strings.Join(cfg.Kafka.Brokers, ","), "--kafka-topic-prefix", cfg.Kafka.TopicPrefix, "--partitions", fmt.Sprint(cfg.Partitions))
		code := cli.Main(t.Context(), args, cli.IO{In: strings.NewReader(""), Out: &out, Err: &errs, Environ: []string{"STARLING_LOG_LEVEL=warn"}})
		require.Zero(t, code, "%v: %s%s", args, out.String(), errs.String())
		return out.String()
	}
	// eventually repeats a command until it prints something.
	eventually := func(want string, times int, args ...string) {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); strings.Count(command(args...), want) != times; {
			require.True(t, time.Now().Before(deadline), "%v never printed %q", args, want)
			time.Sleep(100 * time.Millisecond)
		}
	}

	log, err := app.OpenLog(t.Context(), cfg, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	done := make(appended, 1)
	require.NoError(t, log.Append(t.Context(), topics.Locations, 1, eventlog.Record{Key: []byte("v-1"), Value: []byte("\xff")}, done))
	require.NoError(t, <-done)
	require.NoError(t, log.Close())
	eventually("1 dead letters", 1, "dlq", "list")
	letter := strings.Fields(command("dlq", "list"))[0]
	require.Contains(t, command("dlq", "show", letter), "not as a whole")
	require.Contains(t, command("dlq", "replay", letter), "1 appended")
	eventually("2 dead letters", 1, "dlq", "list")

	activate := []string{"topics", "activate", "--tracker-window", "20s"}
	eventually("window_ms: 30000 -> 20000", cfg.Partitions, append(activate, "--dry-run")...)
	command(append(activate, "--yes")...)
	eventually("  nothing\n", cfg.Partitions, append(activate, "--dry-run")...)
	tracking.end(t)
}
