package app

import (
	"log/slog"
	"os"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// heapShare is how much of the container's limit Go's memory may take, of what is
// left beside the log's stores: the rest is for fragments and the kernel's own.
const heapShare = 0.9

// limitMemory has Go collect garbage in time for the memory limit of the
// container, if there is one: left to itself Go lets the heap double and is killed.
// The stores' memory is outside Go's heap, so it is taken off first. A GOMEMLIMIT
// of the user's is left alone. A limit that can't be read is no reason not to serve.
func limitMemory(storeBytes int64, limit memlimit.Provider, logger *slog.Logger) {
	if set, ok := os.LookupEnv("GOMEMLIMIT"); ok {
		logger.Info("the memory limit of Go is the environment's", "gomemlimit", set)
		return
	}
	var container uint64
	gomemlimit, err := memlimit.Set(memlimit.WithRatio(heapShare), memlimit.WithProvider(func() (uint64, error) {
		all, err := limit()
		if err != nil {
			return 0, err
		}
		container = all
		return all - min(uint64(storeBytes), all/2), nil
	}))
	switch {
	case err != nil:
		logger.Warn("the container's memory limit can't be read: Go's memory has no limit", "error", err)
	case container == 0:
		logger.Info("the process has no memory limit: neither a container's nor GOMEMLIMIT")
	default:
		logger.Info("the memory limit of Go follows the container's", "gomemlimit_bytes", gomemlimit, "container_bytes", container, "store_bytes", storeBytes)
	}
}

// storeBytes is what the log's stores hold outside Go's heap: caches and the
// memtables that are being written out.
func (c *Config) storeBytes() int64 {
	if c.OnKafka() {
		return 0
	}
	return c.Local.StoreMemoryBytes()
}
