package eventlog_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/topics"
)

type appended chan error

func (a appended) Done(_ int64, err error) { a <- err }

// Every log of a few records, wherever its reader stood and whatever it had read,
// against a look at every record.
func TestResumeAgainstLookingAtEveryRecord(t *testing.T) {
	now := time.UnixMilli(1000)
	log := memlog.Open(memlog.NewStore(1, topics.All(), 0), memlog.Options{Now: func() time.Time { return now }})
	t.Cleanup(func() { _ = log.Close() })
	stamps := []int64{1000, 1000, 1001, 1005, 1005, 1005, 1006, 1010}
	for _, ms := range stamps {
		now = time.UnixMilli(ms)
		done := make(appended, 1)
		require.NoError(t, log.Append(t.Context(), topics.RideRequests, 0, eventlog.Record{Value: []byte("x")}, done))
		require.NoError(t, <-done)
	}
	end := int64(len(stamps))
	for first := range end {
		log.Store().Truncate(topics.RideRequests, 0, first)
		for offset := range end + 3 {
			for _, readMS := range []int64{0, 999, 1000, 1001, 1002, 1005, 1009, 1010, 2000} {
				want := max(first, min(offset, end))
				for at := want - 1; at >= first && readMS > 0 && stamps[at] > readMS; at-- {
					want = at
				}
				got, err := eventlog.Resume(t.Context(), log, topics.RideRequests, 0, eventlog.Bounds{First: first, End: end}, offset, readMS)
				require.NoError(t, err)
				require.Equal(t, want, got, "first %d, offset %d, read %d ms", first, offset, readMS)
			}
		}
	}
}
