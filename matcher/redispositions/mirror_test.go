package redispositions

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMirrorIsBounded(t *testing.T) {
	m, at := newMirror(1, 3), time.Unix(0, 0)
	for n := range int64(100) {
		m.put(fmt.Sprintf("car-%d", n%4), position{source: n}, at)
	}
	require.Len(t, m.vehicles, 3)
	require.Len(t, m.queue, 3)
	require.EqualValues(t, 25, m.unplaced)
	batch := m.take(2, nil)
	require.Equal(t, []int64{96, 97}, []int64{batch[0].source, batch[1].source}, "the newest of each, who waits longest first")
	m.put("car-0", position{source: 200}, at)
	m.giveBack(batch)
	require.Len(t, m.queue, 3)
	batch = m.take(10, nil)
	require.Equal(t, []int64{98, 200, 97}, []int64{batch[0].source, batch[1].source, batch[2].source}, "what came since a batch was taken wins")
	require.Nil(t, m.queue)
	m.enqueueAll(at)
	require.Len(t, m.queue, 3)
}

func TestMirrorLetsGoOfWhatNobodyPublishes(t *testing.T) {
	m, at := newMirror(1, 10), func(s int64) time.Time { return time.Unix(s, 0) }
	m.expire(at(100), 10)
	m.put("a", position{source: 1}, at(1))
	m.put("b", position{source: 2}, at(2))
	m.put("c", position{source: 3}, at(3))
	m.put("a", position{source: 4}, at(4))
	m.expire(at(4), 1)
	require.NotContains(t, m.vehicles, "b")
	m.expire(at(4), 10)
	require.Len(t, m.vehicles, 1)
	batch := m.take(10, nil)
	require.Len(t, batch, 1, "who was let go is not written")
	require.Equal(t, "a", batch[0].id)
	m.put("a", position{source: 5, gone: true}, at(5))
	m.settle(m.take(10, nil))
	require.Empty(t, m.vehicles)
	m.enqueueAll(at(6))
	require.Empty(t, m.queue)
}
