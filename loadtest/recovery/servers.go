package recovery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/starling-fleet/starling/loadtest/conns"
	"github.com/starling-fleet/starling/loadtest/process"
)

// startPatience is how long a start may take before the measurement is given up.
const startPatience = 3 * time.Minute

// servers are `starling up` on the local log, or every role on its own on
// Kafka.
type servers struct {
	processes       []*process.Process
	ingest, matcher string
	dir             string
	conns           conns.Set
}

// newServers starts everything on a new log and waits until it serves.
func newServers(ctx context.Context, o *Options, extra ...string) (*servers, error) {
	s := &servers{}
	var err error
	if s.dir, err = os.MkdirTemp(o.WorkDir, "starling-recovery-"); err != nil {
		return nil, fmt.Errorf("make a folder for the log: %w", err)
	}
	roles, args := []string{"up"}, []string{"--local-directory", filepath.Join(s.dir, "log")}
	if o.onKafka() {
		roles = []string{"matcher", "tracker", "ingest"}
		args = []string{"--kafka-brokers", strings.Join(o.KafkaBrokers, ","), "--kafka-topic-prefix", filepath.Base(s.dir) + "-"}
	}
	args = slices.Concat(args, extra, o.Args)
	for _, role := range roles {
		if err := s.add(ctx, o, role, args); err != nil {
			return nil, errors.Join(err, s.stop())
		}
	}
	return s, nil
}

// add starts one role and waits for it: the first makes the topics.
func (s *servers) add(ctx context.Context, o *Options, role string, args []string) error {
	addrs, err := process.FreeAddresses()
	if err != nil {
		return err
	}
	if role == "up" || role == "ingest" {
		s.ingest = addrs.Ingest
	}
	if role == "up" || role == "matcher" {
		s.matcher = addrs.Matcher
	}
	command := slices.Concat(o.Starling, []string{role, "--log-level", "warn"}, addrs.Args(), args)
	p := process.New(process.Spec{Name: role, Command: command, Admin: addrs.Admin})
	if err := p.Start(); err != nil {
		return err
	}
	s.processes = append(s.processes, p)
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	_, err = p.WaitReady(ctx)
	return err
}

// kill ends everything at once.
func (s *servers) kill() {
	done := make(chan struct{})
	for _, p := range s.processes {
		go func() { p.Kill(); done <- struct{}{} }()
	}
	for range s.processes {
		<-done
	}
}

// startAgain starts everything after a kill and does not wait.
func (s *servers) startAgain() error {
	var err error
	for _, p := range s.processes {
		err = errors.Join(err, p.Start())
	}
	return err
}

// stop ends everything and removes the local log.
func (s *servers) stop() error {
	var err error
	s.conns.Close()
	for _, p := range slices.Backward(s.processes) {
		err = errors.Join(err, p.StopWithin(time.Minute))
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// reconnect brings a connection back soon after a kill.
var reconnect = conns.Reconnect(10*time.Millisecond, 50*time.Millisecond, 1.2)

// metrics sums the metrics of all processes.
func (s *servers) metrics(ctx context.Context) (map[string]float64, error) {
	sums := map[string]float64{}
	for _, p := range s.processes {
		m, err := p.Metrics(ctx)
		if err != nil {
			return nil, err
		}
		for name, value := range m {
			sums[name] += value
		}
	}
	return sums, nil
}

// cpu is the time that all processes have used.
func (s *servers) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, p := range s.processes {
		used, err := p.CPU()
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}
