package retry

import (
	"math/rand/v2"
	"time"
)

// Backoff returns the wait after the given number of failures in a row: least
// after the first, twice as long after each further one, never above most, and
// drawn from four to six fifths of that, so that the callers of a server that
// has failed do not come back in step.
func Backoff(least, most time.Duration, failures int) time.Duration {
	d := min(least<<min(max(failures-1, 0), 20), most)
	return d*4/5 + rand.N(d*2/5+1)
}
