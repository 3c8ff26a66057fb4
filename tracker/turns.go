package tracker

import "runtime"

// turns bounds how many of a process's owners step records at once. A group
// commit wakes the owners of all partitions at the same instant; were all of
// them runnable, a search or an acknowledgement would queue behind them, since
// Go's scheduler serves in the order of arrival. Owners that wait for a turn
// are not in that queue.
type turns chan struct{}

// newTurns leaves one CPU, if there are two, to those who must answer soon.
func newTurns() turns { return make(turns, max(1, runtime.NumCPU()-1)) }

// take waits for a turn, first come first served. Whoever has one gives it back
// before waiting for anything that only its own partition waits for.
func (t turns) take() { t <- struct{}{} }

func (t turns) give() { <-t }

// pass lets those who wait go first.
func (t turns) pass() {
	t.give()
	t.take()
}
