package kafkatest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
)

var shared struct {
	mu      sync.Mutex
	cluster *Cluster
	err     error
	tried   bool
}

// Shared returns a one-broker cluster that is started once for the whole test
// binary. The package's TestMain must be `func TestMain(m *testing.M) {
// kafkatest.Main(m) }`, which stops it. Tests keep apart by topic prefixes.
func Shared(tb testing.TB) *Cluster {
	tb.Helper()
	Need(tb)
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.tried {
		shared.tried = true
		_, measured := tb.(*testing.B)
		shared.cluster, shared.err = Start(context.Background(), Options{Measured: measured})
	}
	if shared.err != nil {
		tb.Fatal(shared.err)
	}
	return shared.cluster
}

// Main runs a package's tests and then stops the shared cluster.
func Main(m *testing.M) {
	code := m.Run()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.cluster != nil {
		if err := shared.cluster.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}
