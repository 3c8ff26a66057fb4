package app

import (
	"os"
	"runtime"
	"sync"
)

// spareProcs are the processors that Go is given on top of those that there
// are.
const spareProcs = 4

// raiseProcs lets Go run more threads at once than there are CPUs. Go serves
// its goroutines first come first served and takes a processor away from one
// that computes (a garbage collection, a table being merged, a checkpoint being
// encoded) only after 10 ms, so on a machine of a few CPUs a search can wait
// for several such turns. With processors to spare the search gets a thread at
// once, and the kernel prefers a thread that has slept to one that computes all
// the time. With a million vehicles on two CPUs the 99th percentile of a search
// fell from seconds to some ten milliseconds, and throughput stayed.
//
// A limit to fewer CPUs than the machine has, which Go has heeded by now, and
// the user's GOMAXPROCS are left alone: threads beyond a limit only use it up
// early.
var raiseProcs = sync.OnceFunc(func() {
	if n := runtime.GOMAXPROCS(0); os.Getenv("GOMAXPROCS") == "" && n == runtime.NumCPU() {
		runtime.GOMAXPROCS(n + spareProcs)
	}
})
