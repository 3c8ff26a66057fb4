package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/internal/kafkatest"
	"github.com/starling-fleet/starling/internal/replay"
)

// recordedDrives finds the folder of recorded drives, which is not part of the
// repository. In CI it must be there.
func recordedDrives(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("STARLING_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "shared", "data")
	}
	if _, err := os.Stat(filepath.Join(dir, "truth")); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("the recorded drives must be there in CI: %v", err)
		}
		t.Skipf("no recorded drives (set STARLING_DATA to their folder): %v", err)
	}
	return dir
}

// replayAndVerify plays files and holds the account and the answers to the
// promise: every row in exactly one class, nearest as by brute force.
func replayAndVerify(t *testing.T, ingest, matcher *grpc.ClientConn, rows int64, paths ...string) replay.Account {
	t.Helper()
	opts := replay.DefaultOptions()
	opts.Ingest, opts.Fleet, opts.Paths, opts.MaxGap = ingest, matcher, paths, maxGap
	account, err := replay.Run(t.Context(), opts)
	require.NoError(t, err)
	require.NoError(t, account.Check(), "%s", account)
	require.Equal(t, rows, account.Rows)
	require.Zero(t, account.Unacknowledged)
	require.Empty(t, account.Unreadable)
	verify := replay.DefaultVerifyOptions()
	verify.Fleet = matcher
	_, err = replay.Verify(t.Context(), verify)
	require.NoError(t, err)
	return account
}

func TestRecordedDrivesOnTheLocalLog(t *testing.T) {
	dir := recordedDrives(t)
	cfg := app.DefaultConfig()
	cfg.Local.Directory = t.TempDir()
	p := start(t, cfg, app.AllRoles()...)
	ingest, matcher := connect(t, p.Addr(app.Ingest)), dial(t, p.Addr(app.Matcher))
	buses := replayAndVerify(t, ingest, matcher, 598_079, filepath.Join(dir, "fleet", "capmetro.csv.gz"))
	require.Equal(t, map[string]int64{"null_island": 80}, buses.Refused)
	require.Equal(t, int64(16_153), buses.Duplicates)
	replayAndVerify(t, ingest, matcher, 36_879, filepath.Join(dir, "truth"))
	p.end(t)
}

func TestRecordedDrivesOnKafka(t *testing.T) {
	dir := recordedDrives(t)
	cfg := app.DefaultConfig()
	cfg.Kafka.Brokers, cfg.Kafka.TopicPrefix = kafkatest.Shared(t).Brokers(), "drives-"
	p := start(t, cfg, app.AllRoles()...)
	ingest, matcher := connect(t, p.Addr(app.Ingest)), dial(t, p.Addr(app.Matcher))
	replayAndVerify(t, ingest, matcher, 36_879, filepath.Join(dir, "truth"))
	p.end(t)
}
