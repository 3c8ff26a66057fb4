package app

import (
	"os"
	"runtime"
	"sync"
)

// spareProcs are the processors that Go is given on top of those that there
// are.
const spareProcs = 2

// raiseProcs lets Go run more threads at once than there are CPUs. Go serves
// its goroutines first come first served and takes a processor away from one
// that computes (a garbage collection, a table being merged, a checkpoint being
// encoded) only after 10 ms, so on a machine of a few CPUs a search can wait
// for several such turns. With processors to spare the search gets a thread at
// once, and the kernel prefers a thread that has slept to one that computes all
// the time. docs/nearest.md has what it changes.
//
// It leaves alone a GOMAXPROCS that the user has set, and a CPU quota below the
// machine's CPUs as far as Go shows it: threads beyond a quota only use it up
// early. Go takes any quota below two CPUs for two, so on a machine of two none
// is seen. Having been set, the number does not follow a quota that changes
// later.
var raiseProcs = sync.OnceFunc(func() {
	if n := runtime.GOMAXPROCS(0); os.Getenv("GOMAXPROCS") == "" && n == runtime.NumCPU() {
		runtime.GOMAXPROCS(n + spareProcs)
	}
})
