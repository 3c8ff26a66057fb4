package locallog

import "sync"

// calls counts the calls that use the stores beside the workers, so that Close
// can wait for them.
type calls struct {
	mu    sync.Mutex
	n     int
	ended bool
	idle  chan struct{} // closed when ended and none is left
}

// enter says whether a call may begin; leave follows it then.
func (c *calls) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	c.n++
	return true
}

func (c *calls) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.ended && c.n == 0 {
		close(c.idle)
	}
}

// end lets no further call in and returns what is closed when all have left.
// It is called once.
func (c *calls) end() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended, c.idle = true, make(chan struct{})
	if c.n == 0 {
		close(c.idle)
	}
	return c.idle
}
