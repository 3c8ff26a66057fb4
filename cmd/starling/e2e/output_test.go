package e2e

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// `starling demo | head -1` ends in good order and leaves nothing behind.
func TestDemoWhoseOutputIsClosedLeavesNothing(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	cmd := exec.Command(binary(t), "demo", "--vehicles", "10", "--period", "500ms")
	cmd.Env = append(os.Environ(), "TMPDIR="+folder)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	left, err := os.ReadDir(folder)
	require.NoError(t, err)
	require.NotEmpty(t, left, "else the test looks in the wrong place")
	require.NoError(t, out.Close())

	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		require.NoError(t, err, "%s", errs.String())
	case <-time.After(time.Minute):
		t.Fatal("it goes on although nobody reads what it prints")
	}
	left, err = os.ReadDir(folder)
	require.NoError(t, err)
	require.Empty(t, left)
}
