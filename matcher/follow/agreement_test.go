package follow

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// What free vehicles are published as shows whether the trackers' age of dispatch
// is the matcher's; a disagreement is counted each time and logged once a minute.
func TestAnotherAgeOfDispatchIsReported(t *testing.T) {
	var out bytes.Buffer
	a := agreement{logger: slog.New(slog.NewTextHandler(&out, nil)), maxAgeMS: 60_000}
	const now = 1_767_268_800_000
	view := func(ageMS int64, dispatchable bool) *wire.View {
		return &wire.View{
			Availability: starlingv1.Availability_AVAILABILITY_FREE, Dispatchable: dispatchable,
			DeviceTimeMS: now - ageMS + 3000, DeviceClockAheadMS: 3000,
		}
	}
	conflicting, busy, none := view(1000, false), view(1000, false), view(1000, false)
	conflicting.Conflicting, busy.Availability, none.DeviceTimeMS = true, starlingv1.Availability_AVAILABILITY_BUSY, 0
	for _, v := range []*wire.View{view(0, true), view(60_000, true), view(60_001, false), view(-200_000, false), conflicting, busy, none} {
		a.note(v, now, now)
	}
	require.Zero(t, a.disagreements.Load())
	a.note(view(60_001, true), now, now)
	a.note(view(60_000, false), now, now+59_999)
	require.EqualValues(t, 2, a.disagreements.Load())
	require.Equal(t, 1, strings.Count(out.String(), "matcher_dispatch_max_age=1m0s"))
	a.note(view(60_000, false), now, now+60_000)
	require.Equal(t, 2, strings.Count(out.String(), "matcher_dispatch_max_age=1m0s"))
}

// The refused are remembered up to a bound, those that were refused last.
func TestRefusalsAreBounded(t *testing.T) {
	f := &Follower{}
	for i := range int64(2 * maxRefusals) {
		f.refusals.note(fmt.Sprint("x-", i), Refusal{starlingv1.Refusal_REFUSAL_PARTITION_FULL, i})
		f.refusals.note(fmt.Sprint("x-", i), Refusal{starlingv1.Refusal_REFUSAL_PARTITION_FULL, i + 7})
	}
	require.Len(t, f.refusals.by, maxRefusals)
	_, known := f.Refused(fmt.Sprint("x-", maxRefusals-1))
	require.False(t, known)
	for i := range int64(maxRefusals) {
		got, known := f.Refused(fmt.Sprint("x-", maxRefusals+i))
		require.True(t, known)
		require.EqualValues(t, maxRefusals+i+7, got.StreamTimeMS)
	}
}
