package kafkalog_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/kafkalog"
	"github.com/starling-fleet/starling/internal/kafkatest"
)

func loaded(ctx context.Context, c eventlog.Claim) (map[string]string, int64, error) {
	state := make(map[string]string)
	resume, err := c.Load(ctx, func(k, v []byte) error { state[string(k)] = string(v); return nil })
	return state, resume, err
}

var errStop = errors.New("the test is done with it")

// childConfig passes a configuration to a child process.
const childConfig = "KAFKALOG_CHILD"

// runChild checkpoints for ever, printing each number once it knows that it is
// stored; every key of a checkpoint has the same number.
func runChild() {
	var cfg kafkalog.Config
	if err := json.Unmarshal([]byte(os.Getenv(childConfig)), &cfg); err != nil {
		panic(err)
	}
	log, err := openUntested(cfg)
	if err != nil {
		panic(err)
	}
	panic(log.Own(context.Background(), ownSpec, func(ctx context.Context, c eventlog.Claim) error {
		if c.Partition() != 0 {
			<-ctx.Done()
			return ctx.Err()
		}
		_, resume, err := loaded(ctx, c)
		if err != nil {
			return err
		}
		for n := resume + 1; ; n++ {
			changes := make([]eventlog.Record, 100)
			for i := range changes {
				changes[i] = eventlog.Record{Key: fmt.Appendf(nil, "key-%d", i), Value: strconv.AppendInt(nil, n, 10)}
			}
			if err := c.Checkpoint(ctx, changes, n); err != nil {
				return err
			}
			fmt.Println(n)
		}
	}))
}

// TestAKilledOwnerLeavesWholeCheckpoints kills a process amid its checkpoints.
func TestAKilledOwnerLeavesWholeCheckpoints(t *testing.T) {
	cfg := testConfig(kafkatest.Shared(t).Brokers())
	log := openLog(t, cfg)
	encoded, err := json.Marshal(cfg)
	require.NoError(t, err)
	stored := int64(-1)
	for round := range 3 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childConfig+"="+string(encoded))
		child.Stderr = os.Stderr
		child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := child.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, child.Start())
		lines := bufio.NewScanner(out)
		for target := stored + 7 + int64(3*round); stored < target && lines.Scan(); {
			if n, err := strconv.ParseInt(strings.TrimSpace(lines.Text()), 10, 64); err == nil {
				stored = n
			}
		}
		require.NoError(t, child.Process.Kill())
		for lines.Scan() {
			if n, err := strconv.ParseInt(strings.TrimSpace(lines.Text()), 10, 64); err == nil {
				stored = n
			}
		}
		_ = child.Wait() // it was killed
		require.Positive(t, stored)

		claims, _ := own(t, log)
		for {
			h := receive(t, claims, "the dead owner's partition")
			if h.claim.Partition() != 0 {
				continue
			}
			state, resume := mustLoad(t, h)
			require.GreaterOrEqual(t, resume, stored, "what was stored is kept")
			require.Len(t, state, 100)
			for k, v := range state {
				require.Equal(t, fmt.Sprint(resume), v, "key %s", k)
			}
			stored = resume
			h.let <- errStop
			break
		}
	}
}
