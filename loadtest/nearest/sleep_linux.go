package nearest

import (
	"syscall"
	"time"
)

// sleep blocks the thread; it may return early.
func sleep(d time.Duration) {
	ts := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&ts, nil) // interrupted: the caller looks at the clock
}
