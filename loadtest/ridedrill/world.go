package ridedrill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/internal/freeport"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/loadtest/conns"
	"github.com/starling-fleet/starling/loadtest/process"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// role is one of Starling's processes.
type role struct {
	*process.Process
	name, kind string
	output     *os.File
}

// world is the processes and the connections to them.
type world struct {
	opts Options
	// ridesArgs are added to the command lines of owners of rides.
	ridesArgs []string
	processes []*role
	conns     conns.Set
	ingest    []starlingv1.IngestServiceClient
	// ingestAddr is that of the last server for driver apps.
	ingestAddr string
	rides      []starlingv1.RideServiceClient
	// follow are the followers' connections, by node.
	follow    [][]starlingv1.RideServiceClient
	redis     *process.Process // nil without
	redisAddr string
	fleet     starlingv1.FleetServiceClient
}

// reconnect brings a connection back soon after a kill.
var reconnect = conns.Reconnect(20*time.Millisecond, 250*time.Millisecond, 1.5)

// startPatience is how long the first start may take.
const startPatience = 2 * time.Minute

// followersPerConnection bounds the calls of one connection, which a server bounds too.
const followersPerConnection = 50

// layOut makes the processes: one on the local log, several on Kafka, and Redis.
func (w *world) layOut() error {
	if err := w.addRedis(); err != nil {
		return err
	}
	if !w.opts.onKafka() {
		return w.add("up", "up", "--local-directory", w.opts.log().LocalDir())
	}
	cluster := w.clusterArgs()
	processes := [][2]string{{"tracker-1", "tracker"}, {"tracker-2", "tracker"}, {"matcher", "matcher"}, {"ingest", "ingest"}}
	for n := range w.opts.Owners {
		processes = append(processes, [2]string{fmt.Sprintf("rides-%d", n+1), "rides"})
	}
	for _, p := range processes {
		if err := w.add(p[0], p[1], cluster...); err != nil {
			return err
		}
	}
	return nil
}

// clusterArgs are the flags that name the log on Kafka.
func (w *world) clusterArgs() []string {
	return []string{"--kafka-brokers", strings.Join(w.opts.KafkaBrokers, ","), "--kafka-topic-prefix", w.opts.log().TopicPrefix()}
}

// addRedis makes a Redis that keeps nothing on disk.
func (w *world) addRedis() error {
	if w.opts.RedisServer == "" {
		return nil
	}
	addrs, err := freeport.Addrs(1)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(addrs[0])
	if err != nil {
		return err
	}
	w.redisAddr = addrs[0]
	w.redis = process.New(process.Spec{Name: "redis", Command: []string{
		w.opts.RedisServer, "--bind", host, "--port", port, "--dir", w.opts.Dir, "--save", "", "--appendonly", "no", "--loglevel", "warning",
	}})
	w.ridesArgs = append(w.ridesArgs, "--redis-addrs", addrs[0])
	return w.redis.Start()
}

// flushRedis drops all that Redis has.
func (w *world) flushRedis() error {
	conn, err := net.DialTimeout("tcp", w.redisAddr, time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("FLUSHALL\r\n")); err != nil {
		return err
	}
	answer := make([]byte, len("+OK"))
	_, err = io.ReadFull(conn, answer)
	return err
}

// add makes a process with servers of its own and the connections to them.
func (w *world) add(name, kind string, args ...string) error {
	addrs, err := process.FreeAddresses()
	if err != nil {
		return err
	}
	more, err := freeport.Addrs(1)
	if err != nil {
		return err
	}
	o := &w.opts
	command := slices.Concat([]string{o.Binary, kind, "--partitions", fmt.Sprint(o.Partitions), "--tracker-checkpoint-interval", "2s"}, addrs.Args(), args)
	rides := addrs.Matcher
	switch kind {
	case "rides":
		rides = more[0]
		command = append(command, "--server-rides-listen", rides, "--rides-name-keys", strings.Repeat("5a", 32))
		fallthrough
	case "up":
		command = append(command, w.ridesArgs...)
	}
	r := &role{name: name, kind: kind}
	if r.output, err = os.Create(filepath.Join(o.Dir, name+".log")); err != nil {
		return fmt.Errorf("create the file for the output of %s: %w", name, err)
	}
	r.Process = process.New(process.Spec{Name: name, Command: append(command, o.Args...), Admin: addrs.Admin, Output: r.output})
	w.processes = append(w.processes, r)
	return w.connect(kind, addrs, rides)
}

func (w *world) connect(kind string, addrs process.Addresses, rides string) error {
	dial := func(addr string, use func(*grpc.ClientConn)) error {
		conn, err := w.conns.Dial(addr, reconnect)
		if err == nil {
			use(conn)
		}
		return err
	}
	var err error
	if kind == "up" || kind == "ingest" {
		w.ingestAddr = addrs.Ingest
		err = errors.Join(err, dial(addrs.Ingest, func(c *grpc.ClientConn) { w.ingest = append(w.ingest, starlingv1.NewIngestServiceClient(c)) }))
	}
	if kind == "up" || kind == "matcher" {
		err = errors.Join(err, dial(addrs.Matcher, func(c *grpc.ClientConn) { w.fleet = starlingv1.NewFleetServiceClient(c) }))
	}
	if kind == "up" || kind == "rides" {
		err = errors.Join(err, dial(rides, func(c *grpc.ClientConn) { w.rides = append(w.rides, starlingv1.NewRideServiceClient(c)) }))
		var follow []starlingv1.RideServiceClient
		for range (w.opts.Followers + followersPerConnection - 1) / followersPerConnection {
			err = errors.Join(err, dial(rides, func(c *grpc.ClientConn) { follow = append(follow, starlingv1.NewRideServiceClient(c)) }))
		}
		w.follow = append(w.follow, follow)
	}
	return err
}

// start starts every process. Owners of rides need a fleet, and are ready once the
// trackers are; so all start before any is waited for, but for the first, which
// creates the topics.
func (w *world) start(ctx context.Context) error {
	if err := w.layOut(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for i, p := range w.processes {
		if err := p.Start(); err != nil {
			return err
		}
		if i == 0 {
			if _, err := p.WaitReady(ctx); err != nil {
				return err
			}
		}
	}
	for _, p := range w.processes {
		if _, err := p.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stop stops every process in good order, those that feed others first.
func (w *world) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	var err error
	for _, kind := range []string{"ingest", "rides", "up", "tracker", "matcher"} {
		for _, p := range w.processes {
			if p.kind == kind {
				err = errors.Join(err, p.Stop(ctx))
			}
		}
	}
	return err
}

func (w *world) end() {
	for _, p := range w.processes {
		p.Kill()
		_ = p.output.Close()
	}
	if w.redis != nil {
		w.redis.Kill()
	}
	w.conns.Close()
}

// ridesAt is a server for rides, drawn anew for each call: any of them answers.
func (w *world) ridesAt(rng *rand.Rand) starlingv1.RideServiceClient {
	return w.rides[rng.IntN(len(w.rides))]
}

// sleep returns false when ctx was done first.
func sleep(ctx context.Context, d time.Duration) bool { return retry.Sleep(ctx, d) == nil }

// call makes a call until it succeeds, fails for good or ctx is done. Each try
// has tryTimeout; try gets its number, from 0.
func call(ctx context.Context, try func(ctx context.Context, n int) (again bool, err error)) error {
	for n := 0; ; n++ {
		one, cancel := context.WithTimeout(ctx, tryTimeout)
		again, err := try(one, n)
		cancel()
		if err == nil || !again {
			return err
		}
		if !sleep(ctx, 30*time.Millisecond) {
			return errors.Join(ctx.Err(), err)
		}
	}
}

// tryTimeout ends one try: a suspended process does not answer.
const tryTimeout = 3 * time.Second
