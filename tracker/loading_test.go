package tracker_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

func lastTrack(t *testing.T, store *memlog.Store) wire.Track {
	t.Helper()
	records := store.Records(topics.Tracks, 0)
	require.NotEmpty(t, records)
	var track wire.Track
	require.NoError(t, track.Unmarshal(records[len(records)-1].Value))
	return track
}

// The state of an earlier epoch may know of records that the log has lost.
func TestStateOfAnEarlierEpochIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memlog.NewStore(1, topics.All(), time.Second)
		store.SetEpoch(1)
		log := memlog.Open(store, memlog.Options{})
		tr := start(t, log)
		for i := range int64(5) {
			send(t, log, 1, i+1)
			send(t, log, 2, i+1)
			time.Sleep(100 * time.Millisecond)
		}
		tr.stop()
		require.NoError(t, log.Close())
		values, before := store.State(spec, 0)
		require.Len(t, values, 3, "two vehicles and the partition")

		store.SetEpoch(2)
		log = open(t, store, memlog.Options{})
		tr = start(t, log)
		time.Sleep(100 * time.Millisecond)
		values, resume := store.State(spec, 0)
		require.Len(t, values, 1, "the vehicles are unknown, and that is durable before anything is published")
		require.Equal(t, before, resume, "no record is skipped or read again")
		send(t, log, 1, 6)
		time.Sleep(100 * time.Millisecond)
		track := lastTrack(t, store)
		require.Equal(t, int64(2), track.Epoch)
		require.Equal(t, before, track.SourceOffset)
		require.Equal(t, int64(2), track.Live.Counts.Accepted, "counted from the new epoch's beginning")
		tr.stop()
	})
}

// What a partition steps by is durable before its first track, so that trackers
// that are configured differently can't publish it differently.
func TestTheFirstCheckpointComesBeforeTheFirstTrack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memlog.NewStore(1, topics.All(), time.Second)
		loaded := false
		log := open(t, store, memlog.Options{
			AfterCheckpoint: func(_ eventlog.OwnSpec, _ int32, changes []eventlog.Record, resume int64) error {
				if !loaded {
					require.Len(t, changes, 1)
					require.Zero(t, resume)
					require.Empty(t, store.Records(topics.Tracks, 0))
				}
				loaded = true
				return nil
			},
			BeforeAppend: func(topic string, _ int32, _ eventlog.Record) error {
				require.True(t, loaded || topic == topics.Locations, "%s before the first checkpoint", topic)
				return nil
			},
		})
		send(t, log, 1, 1)
		tr := start(t, log)
		time.Sleep(100 * time.Millisecond)
		require.Len(t, store.Records(topics.Tracks, 0), 1)
		tr.stop()
	})
}

// A partition whose past is lost needs a new epoch, which is an operator's word.
func TestLostStateIsRefusedUntilTheEpochIsRaised(t *testing.T) {
	for name, test := range map[string]struct {
		lose func(t *testing.T, store *memlog.Store)
		want string
	}{
		"the state topic is gone": {func(t *testing.T, store *memlog.Store) {
			track := wire.Track{Epoch: 1, SourceOffset: 0, PreviousSourceOffset: -1}
			log := open(t, store, memlog.Options{})
			require.NoError(t, log.Append(t.Context(), topics.Tracks, 0, eventlog.Record{Key: []byte("v-1"), Value: track.Append(nil)}, ignore{}))
		}, "the state is lost: tracks has records of epoch 1"},
		"records were deleted unread": {func(_ *testing.T, store *memlog.Store) {
			store.Truncate(topics.Locations, 0, 1)
		}, "the records before offset 1 were deleted"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memlog.NewStore(1, topics.All(), time.Second)
				store.SetEpoch(1)
				log := open(t, store, memlog.Options{})
				send(t, log, 1, 1)
				send(t, log, 1, 2)
				time.Sleep(time.Millisecond)
				test.lose(t, store)
				time.Sleep(time.Millisecond)
				err := <-start(t, log).ended
				require.ErrorContains(t, err, test.want)
				require.ErrorContains(t, err, "raise-epoch")

				store.SetEpoch(2)
				tr := start(t, log)
				time.Sleep(100 * time.Millisecond)
				tr.stop()
				require.Equal(t, int64(2), lastTrack(t, store).Epoch)
			})
		})
	}
}

// Records that were appended after the epoch was raised, before a tracker began it,
// have the offsets of those that the log has lost: they are not taken for them.
func TestRecordsBeforeTheFirstLoadOfARaisedEpochAreRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memlog.NewStore(1, topics.All(), time.Second)
		store.SetEpoch(1)
		log := open(t, store, memlog.Options{})
		tr := start(t, log)
		for sequence := range int64(3) {
			send(t, log, 1, sequence+1)
		}
		time.Sleep(100 * time.Millisecond)
		tr.stop()
		store.Shorten(topics.Locations, 0, 0)
		store.Shorten(topics.Tracks, 0, 0)
		store.SetEpoch(2)
		time.Sleep(time.Second)
		send(t, log, 1, 1)
		send(t, log, 1, 2)
		time.Sleep(100 * time.Millisecond)
		tr = start(t, log)
		time.Sleep(100 * time.Millisecond)
		tr.stop()
		tracks := store.Records(topics.Tracks, 0)
		require.Len(t, tracks, 2)
		require.Equal(t, int64(2), lastTrack(t, store).Epoch)
	})
}
