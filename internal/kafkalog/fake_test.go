package kafkalog_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/starling-fleet/starling/internal/eventlog/logtest"
)

func newFake(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3), kfake.GroupMinSessionTimeout(time.Second)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// hold keeps produce requests from being answered until released.
type hold struct {
	mu  sync.Mutex
	end chan struct{} // nil while nothing is held
}

func (h *hold) install(c *kfake.Cluster) {
	c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		h.mu.Lock()
		end := h.end
		h.mu.Unlock()
		if end != nil {
			c.SleepControl(func() { <-end })
		}
		return nil, nil, false
	})
}

func (h *hold) begin() (release func()) {
	end := make(chan struct{})
	h.mu.Lock()
	h.end = end
	h.mu.Unlock()
	return func() {
		h.mu.Lock()
		h.end = nil
		h.mu.Unlock()
		close(end)
	}
}

// TestConformanceOnFake runs the suite on franz-go's imitation of Kafka, which
// is quick and can hold requests back.
func TestConformanceOnFake(t *testing.T) {
	logtest.Run(t, func(t *testing.T) logtest.Harness {
		c := newFake(t)
		var held hold
		held.install(c)
		h := harness(t, c.ListenAddrs())
		h.Without = []string{"Crash", "Fail"}
		h.Hold = func(*testing.T) func() { return held.begin() }
		h.BufferBytes = 16 << 20
		return h
	})
}
