package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/kafkatest"
	"github.com/starling-fleet/starling/internal/redistest"
	"github.com/starling-fleet/starling/loadtest/ridedrill"
)

// The short forms of the drill of double promises; docs/drills.md has the long ones.
// How many proposals they get to depends on the machine; the verdict does not.

func TestRidesDrillLocal(t *testing.T) {
	t.Parallel()
	o := ridesDrillOptions(t)
	o.Limit, o.KillEvery = 40*time.Second, 10*time.Second
	runRidesDrill(t, o)
}

func TestRidesDrillKafka(t *testing.T) {
	t.Parallel()
	o := ridesDrillOptions(t)
	o.KafkaBrokers = kafkatest.Shared(t).Brokers()
	o.Partitions, o.Riders, o.MatchInterval, o.Decide, o.Offer = 12, 48, 50*time.Millisecond, 3*time.Second, 5*time.Second
	redistest.Need(t)
	o.RedisServer, o.RedisEvery = "redis-server", 5*time.Second
	o.Limit, o.KillEvery, o.SleepEvery, o.Asleep = 30*time.Second, 20*time.Second, 25*time.Second, 8*time.Second
	runRidesDrill(t, o)
}

// Followers at several nodes, whose connections break while nodes and Redis are killed.
func TestRideEventsDrill(t *testing.T) {
	o := ridedrill.DefaultFollowing()
	ridesDrillFolder(t, &o)
	o.KafkaBrokers = kafkatest.Shared(t).Brokers()
	redistest.Need(t)
	o.Partitions, o.Vehicles, o.Riders, o.Followers, o.Owners = 6, 12, 12, 120, 2
	o.Limit, o.KillEvery, o.SleepEvery, o.RedisEvery, o.Away = 20*time.Second, 5*time.Second, 0, 2*time.Second, time.Second
	runRidesDrill(t, o)
}

func ridesDrillOptions(t *testing.T) ridedrill.Options {
	t.Helper()
	o := ridedrill.DefaultOptions()
	ridesDrillFolder(t, &o)
	return o
}

func ridesDrillFolder(t *testing.T, o *ridedrill.Options) {
	t.Helper()
	// The folder's name is the prefix of the topics, and the tests share a Kafka.
	o.Dir = filepath.Join(t.TempDir(), fmt.Sprintf("%s-%d", t.Name(), time.Now().UnixNano()))
	require.NoError(t, os.Mkdir(o.Dir, 0o755))
	o.Binary, o.Seed, o.Progress = binary(t), 20260101, t.Output()
}

func runRidesDrill(t *testing.T, o ridedrill.Options) {
	t.Helper()
	account, err := ridedrill.Run(t.Context(), o)
	require.NoError(t, err)
	t.Log("\n" + account.String())
	require.True(t, account.OK(), "%s", account)
}
