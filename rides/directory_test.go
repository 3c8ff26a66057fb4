package rides

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/topics"
)

// Strangers may ask for any name: nothing is left of who has waited.
func TestNobodyWhoHasWaitedIsRemembered(t *testing.T) {
	log := memlog.Open(memlog.NewStore(1, topics.All(), 0), memlog.Options{})
	defer log.Close()
	d := newDirectory(log, time.Hour, time.Hour)
	first, second := d.join(0), d.join(0)
	d.mu.Lock()
	more := first.rung
	d.announce(0)
	d.announce(1)
	d.mu.Unlock()
	<-more
	d.leave(0, first)
	require.Len(t, d.waiting, 1, "one still waits")
	d.leave(0, second)
	require.Empty(t, d.waiting)
}
