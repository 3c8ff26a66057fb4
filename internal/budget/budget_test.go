package budget_test

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/budget"
)

func stats(p *budget.Pool) []int64 {
	used, evicted, refused := p.Stats()
	return []int64{used, evicted, refused}
}

func TestAmongEqualsTheOldestGivesWayUnlessItIsYoung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone []string
		p := budget.New(100, time.Second)
		take := func(name string, bytes int64) *budget.Lease {
			return p.Take(name, bytes, func() { gone = append(gone, name) })
		}
		require.NotNil(t, take("a", 50))
		time.Sleep(600 * time.Millisecond)
		b := take("b", 50)
		require.NotNil(t, b)
		require.Nil(t, take("c", 50), "all is young, and nobody holds more")
		require.Equal(t, []int64{100, 0, 1}, stats(p))
		time.Sleep(600 * time.Millisecond)
		c := take("c", 50)
		require.NotNil(t, c)
		require.Equal(t, []string{"a"}, gone)
		b.Release()
		b.Release()
		require.Equal(t, []int64{50, 1, 1}, stats(p))
		require.False(t, b.Grow(1), "a lease that was released does not come back")
		require.True(t, c.Grow(50))
		time.Sleep(2 * time.Second)
		require.False(t, c.Grow(1), "no lease gives way to itself")
		require.Nil(t, take("d", 101), "more than there is")
	})
}

// Who holds most gives way at once to who holds less.
func TestWhoHoldsMostGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		evicted := 0
		p := budget.New(100, time.Hour)
		for range 10 {
			require.NotNil(t, p.Take("greedy", 10, func() { evicted++ }))
		}
		for range 5 {
			require.NotNil(t, p.Take("honest", 10, func() { t.Error("the honest one gives way") }))
		}
		require.Equal(t, 5, evicted)
		require.Nil(t, p.Take("honest", 10, nil), "it holds as much by now")
		require.Nil(t, p.Take("greedy", 10, nil))
		require.NotNil(t, p.Take("third", 10, nil))
	})
}

func TestExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		evicted := 0
		p := budget.New(100, time.Hour)
		l := p.Take(1, 30, func() { evicted++ })
		time.Sleep(5 * time.Second)
		p.Take(1, 30, func() { evicted++ })
		p.Expire(5 * time.Second)
		require.Equal(t, 1, evicted)
		require.Equal(t, []int64{30, 1, 0}, stats(p))
		l.Release()
		require.Equal(t, []int64{30, 1, 0}, stats(p))
	})
}

// Whatever happens, what is held is within the limit and is given back.
func TestTheAccountCloses(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	p := budget.New(1000, 0)
	var all []*budget.Lease
	for range 20_000 {
		switch rng.IntN(3) {
		case 0:
			if l := p.Take(rng.IntN(7), rng.Int64N(200), func() {}); l != nil {
				all = append(all, l)
			}
		case 1:
			if len(all) > 0 {
				all[rng.IntN(len(all))].Grow(rng.Int64N(200))
			}
		default:
			if len(all) > 0 {
				i := rng.IntN(len(all))
				all[i].Release()
				all = append(all[:i], all[i+1:]...)
			}
		}
		used, _, _ := p.Stats()
		require.True(t, used >= 0 && used <= 1000, "%d", used)
	}
	for _, l := range all {
		l.Release()
	}
	require.Zero(t, stats(p)[0])
}

// work ends without giving its lease back.
type work struct {
	lease budget.Lease
	ended bool
}

func (w *work) Evict()      {}
func (w *work) Ended() bool { return w.ended }

// What ended work still holds is nobody's when the budget is used up, and is taken
// back by the next sweep.
func TestEndedWorkGivesWayFirst(t *testing.T) {
	p := budget.New(100, time.Hour)
	var old, other work
	require.True(t, p.TakeFor(&old, &old.lease, "a", 60))
	require.True(t, p.TakeFor(&other, &other.lease, "b", 40))
	require.Nil(t, p.Take("c", 60, nil))
	old.ended = true
	require.NotNil(t, p.Take("c", 60, nil))
	require.Equal(t, []int64{100, 0, 1}, stats(p))
	other.ended = true
	p.Expire(time.Hour)
	require.Equal(t, []int64{60, 0, 1}, stats(p))
	other.lease.Release()
	require.Equal(t, []int64{60, 0, 1}, stats(p), "given back once")
}
