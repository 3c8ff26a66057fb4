//go:build !linux

package nearest

import "time"

func sleep(d time.Duration) { time.Sleep(d) }
