package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/kafkatest"
	"github.com/starling-fleet/starling/loadtest/drill"
)

// The short forms of the crash drill; docs/drills.md has the long ones. What they
// find does not depend on how busy the machine is, so tests whose processes are all
// their own run beside each other. The drill of clocks runs alone in this package:
// its devices' stamps must be consumed within seconds of being made.

func TestCrashDrillLocal(t *testing.T) {
	t.Parallel()
	o := drillOptions(t)
	o.Kills, o.Duration = 5, 15*time.Second
	runDrill(t, o)
}

// TestStopDrillLocal stops in good order under load; make drill-stop is the long
// form. How long a stop takes depends on the machine and is judged there.
func TestStopDrillLocal(t *testing.T) {
	t.Parallel()
	o := drillOptions(t)
	o.Stop, o.Slack, o.Kills, o.Duration = true, 5, 2, 8*time.Second
	runDrill(t, o)
}

func TestCrashDrillKafka(t *testing.T) {
	t.Parallel()
	o := drillOptions(t)
	o.KafkaBrokers = kafkatest.Shared(t).Brokers()
	o.Kills, o.Zombies, o.Duration = 5, 1, 30*time.Second
	runDrill(t, o)
}

// TestRolloutDrillKafka does what is planned: a tracker comes and goes, every
// process is restarted. How long fixes take to be found meanwhile depends on the
// machine and is judged by the long form; here they must be found at all.
func TestRolloutDrillKafka(t *testing.T) {
	t.Parallel()
	o := drillOptions(t)
	o.KafkaBrokers = kafkatest.Shared(t).Brokers()
	o.Rollout, o.Slack, o.Kills, o.Duration = true, 20, 0, 20*time.Second
	account := runDrill(t, o)
	require.Len(t, account.Gaps, 6)
	for _, g := range account.Gaps {
		require.Positive(t, g.Longest, g.Phase)
	}
}

// TestClockDrillKafka sets the broker's clock wrong for seconds, with devices
// that stamp ahead and second phones; the long form also lets it be believed.
func TestClockDrillKafka(t *testing.T) {
	kafkatest.Need(t)
	clock, err := kafkatest.NewClock(t.TempDir())
	require.NoError(t, err)
	defer func() { require.NoError(t, clock.Close()) }()
	cluster, err := kafkatest.Start(t.Context(), clock.Options())
	require.NoError(t, err)
	defer func() { require.NoError(t, cluster.Stop()) }()
	o := drillOptions(t)
	o.KafkaBrokers, o.LogClock = cluster.Brokers(), clock.Set
	o.Kills, o.Speed, o.FixesPerSecond, o.FixesPerReport, o.Duration = 0, 1, 400, 2, 35*time.Second
	o.Slack = 4 // how soon a fix is served depends on the machine
	account, err := drill.Run(t.Context(), o)
	require.NoError(t, err)
	t.Log("\n" + account.String())
	require.True(t, account.OK(), "%s", account)
	require.Positive(t, account.Totals.SetAside)
	require.Positive(t, account.Totals.Accepted)
}

// drillOptions makes a small fleet that reports ten minutes of device time.
func drillOptions(t *testing.T) drill.Options {
	t.Helper()
	o := drill.DefaultOptions()
	// The folder's name is the prefix of the topics, and the tests share a Kafka.
	o.Dir = filepath.Join(t.TempDir(), fmt.Sprintf("%s-%d", t.Name(), time.Now().UnixNano()))
	require.NoError(t, os.Mkdir(o.Dir, 0o755))
	o.Binary = binary(t)
	o.Partitions, o.FixesPerSecond, o.Speed, o.Streams = 6, 1500, 10, 8
	o.Args = []string{"--tracker-checkpoint-interval", "2s"}
	o.Seed = 20260101
	o.Progress = t.Output()
	return o
}

func runDrill(t *testing.T, o drill.Options) *drill.Account {
	t.Helper()
	account, err := drill.Run(t.Context(), o)
	require.NoError(t, err)
	t.Log("\n" + account.String())
	require.True(t, account.OK(), "%s", account)
	// The drill must have met what it is about. That is what the seed decides;
	// whether a kill meets a report that is not yet acknowledged, or a track that
	// is not yet checkpointed, is luck: the client's and the tracker's own tests
	// force those.
	require.Positive(t, account.Totals.CopiesStored)
	require.Positive(t, account.Totals.Duplicate)
	require.Positive(t, account.Totals.Conflict)
	require.Positive(t, account.Totals.Late)
	require.Positive(t, account.Totals.Refused)
	require.Positive(t, account.Totals.FinalPoints)
	return account
}

var built struct {
	once sync.Once
	path string
	err  error
}

// binary builds starling once for all tests.
func binary(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		// Not t.TempDir, which ends with the first test.
		dir, err := os.MkdirTemp("", "starling-e2e-")
		if err != nil {
			built.err = err
			return
		}
		built.path = filepath.Join(dir, "starling")
		if out, err := exec.Command("go", "build", "-o", built.path, "..").CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build starling: %w: %s", err, out)
		}
	})
	require.NoError(t, built.err)
	return built.path
}
