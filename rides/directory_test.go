package rides

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/topics"
)

// Strangers may ask for any name: nothing is left of who has waited for one.
func TestNobodyWhoHasWaitedIsRemembered(t *testing.T) {
	log := memlog.Open(memlog.NewStore(1, topics.All(), 0), memlog.Options{})
	defer log.Close()
	d := newDirectory(log, time.Hour)
	first, second := d.join(rideKey("r")), d.join(rideKey("r"))
	_, _, _, more := d.since(0, "r", 0)
	d.mu.Lock()
	d.announce(rideKey("r"))
	d.announce(rideKey("nobody waits for"))
	d.mu.Unlock()
	<-more
	first()
	require.Len(t, d.waiting, 1, "one still waits")
	second()
	require.Nil(t, d.get(0, "other"))
	require.Empty(t, d.waiting)
}
