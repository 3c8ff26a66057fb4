// Package starlingtest lets a test binary be starling itself, for the tests of
// what starts, drives and ends the real program.
package starlingtest

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/cmd/starling/cli"
)

// serveEnv makes a child serve instead of running tests.
const serveEnv = "STARLINGTEST_SERVE"

// Main is the TestMain of a package that uses Command.
func Main(m *testing.M) {
	if os.Getenv(serveEnv) == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	code := cli.Main(ctx, os.Args[1:], cli.IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Environ: os.Environ()})
	stop()
	os.Exit(code)
}

// Command returns what starts this test binary as starling.
func Command(t *testing.T) []string {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	t.Setenv(serveEnv, "1")
	return []string{self}
}
