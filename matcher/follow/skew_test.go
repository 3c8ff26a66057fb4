package follow

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Stamps in the future are warned of once a minute by the clock that the records
// are applied by, and at once when that is set back.
func TestStampsInTheFutureAreWarnedOfOnceAMinute(t *testing.T) {
	var out bytes.Buffer
	s := newSkew(slog.New(slog.NewTextHandler(&out, nil)), 5*time.Second)
	warnings := func() int { return strings.Count(out.String(), "in the future") }
	nowMS := int64(1_800_000_000_000)
	for range 120 {
		s.note(nowMS, nowMS+2000)
		nowMS += 1000
	}
	require.Equal(t, 2, warnings())
	require.InDelta(t, -2, s.seconds(), 1e-9)
	s.note(nowMS-3_600_000, nowMS)
	require.Equal(t, 3, warnings())
	s.note(nowMS-3_600_000, nowMS-3_600_000+skewAlarm.Milliseconds())
	require.Equal(t, 3, warnings(), "a second ahead is nothing to warn of")
}
