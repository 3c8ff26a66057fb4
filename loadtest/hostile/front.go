package hostile

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/starling-fleet/starling/internal/freeport"
	"github.com/starling-fleet/starling/loadtest/process"
)

// frontPatience bounds how long a fan-out may take to serve, and to stop.
const frontPatience = time.Minute

// startFront starts a fan-out before the process, with a service token of its own.
func (t *target) startFront(ctx context.Context) error {
	addrs, err := freeport.Addrs(2)
	if err != nil {
		return err
	}
	token, err := t.tokens.of("fan-out", "service")
	if err != nil {
		return err
	}
	file := filepath.Join(t.tokens.dir, "service.token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		return fmt.Errorf("write the fan-out's token: %w", err)
	}
	args := append([]string{
		"fanout", "--dev", "--log-level", "warn", "--matcher-regions", "all=rest", "--fanout-replicas", "all=" + t.Matcher,
		"--server-matcher-listen", addrs[0], "--server-admin-listen", addrs[1], "--server-json-listen", "", "--auth-service-token-file", file,
	}, t.tokens.args()...)
	t.frontAddr = addrs[0]
	t.front = process.New(process.Spec{Name: "fan-out", Admin: addrs[1], Command: append(append([]string{}, t.command...), args...)})
	if err := t.front.Start(); err != nil {
		t.front = nil
		return err
	}
	ready, cancel := context.WithTimeout(ctx, frontPatience)
	defer cancel()
	_, err = t.front.WaitReady(ready)
	return err
}

// endFront stops the fan-out, if there is one.
func (t *target) endFront() error {
	if t.front == nil {
		return nil
	}
	front := t.front
	t.front = nil
	return front.StopWithin(frontPatience)
}

// fleetAddr is where dispatchers ask.
func (t *target) fleetAddr() string {
	if t.front != nil {
		return t.frontAddr
	}
	return t.Matcher
}

// memory is the resident memory of all processes that are attacked.
func (t *target) memory() int64 {
	bytes := t.Memory("VmRSS")
	if t.front != nil {
		bytes += t.front.Memory("VmRSS")
	}
	return bytes
}

// cpu is the CPU time that they have used.
func (t *target) cpu() (time.Duration, error) {
	used, err := t.CPU()
	if err != nil || t.front == nil {
		return used, err
	}
	more, err := t.front.CPU()
	return used + more, err
}
