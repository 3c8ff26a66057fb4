//go:build unix

package app

import (
	"fmt"
	"math"
	"syscall"
)

// raiseDescriptors raises the soft limit of open files to the hard one and
// returns it.
func raiseDescriptors() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	if limit.Cur < limit.Max {
		raised := limit
		raised.Cur = limit.Max
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) == nil {
			limit = raised
		}
	}
	return int(min(uint64(limit.Cur), math.MaxInt32)), nil //nolint:unconvert // its type differs between systems
}

// keepFilesPrivate has what the process makes be for its owner only, in a data
// directory too that was there before and is open to others.
func keepFilesPrivate() { syscall.Umask(0o077) }
