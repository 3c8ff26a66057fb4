package kafkatest_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/starling-fleet/starling/internal/kafkatest"
)

func TestMain(m *testing.M) {
	if os.Getenv("KAFKATEST_CHILD") != "" {
		runChild()
	}
	kafkatest.Main(m)
}

// runChild starts a broker, states where it listens and panics.
func runChild() {
	c, err := kafkatest.Start(context.Background(), kafkatest.Options{})
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString(c.Brokers()[0] + "\n")
	panic("the test dies")
}

func TestABrokerDiesWithItsParent(t *testing.T) {
	kafkatest.Need(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "KAFKATEST_CHILD=1")
	out, err := cmd.Output()
	require.Error(t, err, "the child must have panicked")
	addr := strings.TrimSpace(strings.SplitN(string(out), "\n", 2)[0])
	require.NotEmpty(t, addr)
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DialTimeout(time.Second))
	require.NoError(t, err)
	defer cl.Close()
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return cl.Ping(ctx) != nil
	}, time.Minute, 50*time.Millisecond)
}
