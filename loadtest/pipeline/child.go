package pipeline

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/loadtest/conns"
	"github.com/starling-fleet/starling/loadtest/process"
)

// child is a serving process on a log of its own.
type child struct {
	*process.Process
	process.Addresses
	dir string
}

// start starts a child on a new log and waits until it is ready.
func (b *bench) start(ctx context.Context, kind Kind, extra ...string) (*child, error) {
	addrs, err := process.FreeAddresses()
	if err != nil {
		return nil, err
	}
	c := &child{Addresses: addrs}
	b.started++
	if c.dir, err = os.MkdirTemp(b.opts.WorkDir, "starling-bench-"); err != nil {
		return nil, fmt.Errorf("make a folder for the log: %w", err)
	}
	c.Process = process.New(process.Spec{Name: string(kind), Command: append(b.command(kind, c), extra...), Admin: c.Admin})
	if err := c.Start(); err != nil {
		_ = os.RemoveAll(c.dir)
		return nil, err
	}
	ready, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	if _, err := c.WaitReady(ready); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// command is the child's command line.
func (b *bench) command(kind Kind, c *child) []string {
	prefix := fmt.Sprintf("bench-%d-%d-", os.Getpid(), b.started)
	brokers := strings.Join(b.opts.KafkaBrokers, ",")
	if kind == StarlingWhole || kind == StarlingIngest && brokers != "" {
		role := "up"
		if kind == StarlingIngest {
			role = "ingest"
		}
		args := append([]string{b.opts.Starling, role, "--log-level", "warn"}, c.Args()...)
		if brokers != "" {
			return append(args, "--kafka-brokers", brokers, "--kafka-topic-prefix", prefix)
		}
		return append(args, "--local-directory", filepath.Join(c.dir, "log"))
	}
	args := append([]string{}, b.opts.Serve...)
	return append(args, "-kind", string(kind), "-dir", filepath.Join(c.dir, "log"), "-ingest", c.Ingest, "-admin", c.Admin,
		"-kafka-brokers", brokers, "-kafka-topic-prefix", prefix)
}

// stop ends the child and removes its log. How it ends is not measured.
func (c *child) stop() {
	_ = c.StopWithin(20 * time.Second)
	_ = os.RemoveAll(c.dir)
}

// dial opens n connections for load, which closeAll closes.
func (c *child) dial(n int) (load []grpc.ClientConnInterface, closeAll func(), err error) {
	var set conns.Set
	if load, err = set.DialN(n, c.Ingest); err != nil {
		set.Close()
		return nil, nil, err
	}
	return load, set.Close, nil
}
