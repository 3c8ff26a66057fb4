package kafkatest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/starling-fleet/starling/internal/freeport"
)

// Options set what is started.
type Options struct {
	// Nodes is the number of brokers, 1 or 3; zero means 1.
	Nodes int
	// HeapMB is each broker's heap in MiB; zero means 768.
	HeapMB int
	// Properties override lines of every server.properties.
	Properties map[string]string
	// Measured has the brokers' machine code optimised as in production. Others start
	// sooner and cost less in the minute or two that a test takes.
	Measured bool
	// Env is added to every broker's environment, as NAME=value.
	Env []string
	// TLS, if not nil, has brokers speak TLS with clients, ask these for a
	// certificate, and use it among themselves too.
	TLS *TLS
}

// TLS are the PEM files of brokers, and of clients that Kafka is asked by here. Hosts
// of the certificate must include 127.0.0.1, and its key must be in PKCS #8.
type TLS struct{ CertFile, KeyFile, CAFile string }

// Cluster is a running Kafka. Its methods are not safe for concurrent use.
type Cluster struct {
	dir   string
	nodes []*node
	tls   *tls.Config // of a client; nil without TLS
}

const (
	dirPrefix    = "starling-kafka-"
	startTimeout = 2 * time.Minute
)

// Start installs Kafka if need be, starts the brokers and returns when all of
// them answer. Stop must be called in the end.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if o.Nodes == 0 {
		o.Nodes = 1
	}
	if o.HeapMB == 0 {
		o.HeapMB = 768
	}
	if o.Nodes != 1 && o.Nodes != 3 {
		return nil, fmt.Errorf("kafkatest: nodes must be 1 or 3, not %d", o.Nodes)
	}
	libDir, err := Install(ctx)
	if err != nil {
		return nil, err
	}
	removeLeftovers()
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", dirPrefix, os.Getpid()))
	if err != nil {
		return nil, fmt.Errorf("kafkatest: create directory: %w", err)
	}
	c := &Cluster{dir: dir}
	if err := c.boot(ctx, libDir, o); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Cluster) boot(ctx context.Context, libDir string, o Options) error {
	ports, err := freeport.Find(2 * o.Nodes)
	if err != nil {
		return err
	}
	properties := maps.Clone(o.Properties)
	if o.TLS != nil {
		if properties, c.tls, err = o.TLS.prepare(c.dir, properties); err != nil {
			return err
		}
	}
	var voters []string
	for i := range o.Nodes {
		n := &node{id: i + 1, dir: filepath.Join(c.dir, strconv.Itoa(i+1)), brokerPort: ports[2*i], controllerPort: ports[2*i+1], heapMB: o.HeapMB, measured: o.Measured, libDir: libDir, env: o.Env}
		c.nodes = append(c.nodes, n)
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", n.id, n.controllerPort))
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return fmt.Errorf("kafkatest: draw cluster id: %w", err)
	}
	id[0] &= 0x7f // Kafka refuses ids that start with a dash
	clusterID := base64.RawURLEncoding.EncodeToString(id[:])
	for _, n := range c.nodes {
		if err := os.MkdirAll(n.dir, 0o755); err != nil {
			return fmt.Errorf("kafkatest: create directory of node %d: %w", n.id, err)
		}
		if err := n.writeConfig(strings.Join(voters, ","), o.Nodes, properties); err != nil {
			return fmt.Errorf("kafkatest: configure node %d: %w", n.id, err)
		}
		if err := n.format(clusterID); err != nil {
			return err
		}
	}
	for _, n := range c.nodes {
		if err := n.start(); err != nil {
			return err
		}
	}
	return c.WaitReady(ctx)
}

// Brokers are the addresses for a client.
func (c *Cluster) Brokers() []string {
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.address())
	}
	return addrs
}

// Kill ends node i (from 0) with SIGKILL.
func (c *Cluster) Kill(i int) error { return c.nodes[i].signal(syscall.SIGKILL) }

// Terminate ends node i in good order, as a planned restart does.
func (c *Cluster) Terminate(i int) error { return c.nodes[i].signal(syscall.SIGTERM) }

// Pause stops node i with SIGSTOP until Continue.
func (c *Cluster) Pause(i int) error { return c.nodes[i].signal(syscall.SIGSTOP) }

// Continue lets a paused node go on.
func (c *Cluster) Continue(i int) error { return c.nodes[i].signal(syscall.SIGCONT) }

// Restart starts node i again on its data after Kill or Terminate. It does not
// wait; see WaitReady.
func (c *Cluster) Restart(i int) error {
	if c.nodes[i].running() {
		return fmt.Errorf("kafkatest: node %d is running", c.nodes[i].id)
	}
	return c.nodes[i].start()
}

// WaitReady returns when every running node is known to all the others, the
// cluster has a controller and no partition lacks a replica.
func (c *Cluster) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	want := 0
	var addrs []string
	for _, n := range c.nodes {
		if n.running() {
			want++
			addrs = append(addrs, n.address())
		}
	}
	options := []kgo.Opt{kgo.SeedBrokers(addrs...), kgo.MetadataMinAge(50 * time.Millisecond)}
	if c.tls != nil {
		options = append(options, kgo.DialTLSConfig(c.tls))
	}
	cl, err := kgo.NewClient(options...)
	if err != nil {
		return fmt.Errorf("kafkatest: client: %w", err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if ready(ctx, adm, want, len(c.nodes)) {
			return nil
		}
		for _, n := range c.nodes {
			if n.cmd != nil && !n.running() && want == len(c.nodes) {
				return fmt.Errorf("kafkatest: node %d ended while starting; its log:\n%s", n.id, n.logTail())
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kafkatest: not ready after %v: %w; log of node 1:\n%s", startTimeout, ctx.Err(), c.nodes[0].logTail())
		case <-tick.C:
		}
	}
}

func ready(ctx context.Context, adm *kadm.Client, want, all int) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	meta, err := adm.Metadata(ctx)
	if err != nil || len(meta.Brokers) != want || meta.Controller < 0 {
		return false
	}
	if want < all {
		return true
	}
	for _, t := range meta.Topics {
		for _, p := range t.Partitions {
			if p.Leader < 0 || len(p.ISR) < len(p.Replicas) {
				return false
			}
		}
	}
	return true
}

// Stop ends all brokers and removes their data. It may be called twice.
func (c *Cluster) Stop() error {
	for _, n := range c.nodes {
		if n.running() {
			if err := n.signal(syscall.SIGKILL); err != nil {
				return err
			}
		}
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("kafkatest: remove data: %w", err)
	}
	return nil
}

// removeLeftovers deletes directories of processes that were killed and so
// could not clean up; the name holds the process id.
func removeLeftovers() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	for _, d := range dirs {
		pid, err := strconv.Atoi(strings.SplitN(strings.TrimPrefix(filepath.Base(d), dirPrefix), "-", 2)[0])
		if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = os.RemoveAll(d) // what stays is tried again the next time
		}
	}
}

// CPUTime is the processor time that the running brokers have used, for
// benchmarks that share a machine with them.
func (c *Cluster) CPUTime() (time.Duration, error) {
	var total time.Duration
	for _, n := range c.nodes {
		if !n.running() {
			continue
		}
		used, err := n.cpuTime()
		if err != nil {
			return 0, err
		}
		total += used
	}
	return total, nil
}
