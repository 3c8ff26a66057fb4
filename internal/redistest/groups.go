package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/starling-fleet/starling/internal/freeport"
)

// patience is how long a group may take to come together, or to fail over.
const patience = time.Minute

// Master is the name under which Sentinels watch the primary of StartSentinels.
const Master = "starling"

// Sentinels is a primary and a replica that three Sentinels watch.
type Sentinels struct {
	servers   [2]*Server
	sentinels []*Server
}

// StartSentinels runs them until the test ends, and returns when the Sentinels know
// each other and the replica follows.
func StartSentinels(tb testing.TB) *Sentinels {
	tb.Helper()
	s := &Sentinels{}
	s.servers[0] = Start(tb, "--repl-diskless-sync-delay", "0")
	host, port, _ := net.SplitHostPort(s.servers[0].addr)
	s.servers[1] = Start(tb, "--repl-diskless-sync-delay", "0", "--replicaof", host, port)
	addrs, err := freeport.Addrs(3)
	if err != nil {
		tb.Fatal(err)
	}
	for _, addr := range addrs {
		_, own, _ := net.SplitHostPort(addr)
		dir := tb.TempDir()
		path := filepath.Join(dir, "sentinel.conf")
		text := fmt.Sprintf("bind %s\nport %s\ndir %s\nsentinel monitor %s %s %s 2\nsentinel down-after-milliseconds %s 700\nsentinel failover-timeout %s 3000\n",
			host, own, dir, Master, host, port, Master, Master)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
		server := &Server{tb: tb, addr: addr, dir: dir, command: []string{path, "--sentinel"}}
		tb.Cleanup(server.Kill)
		server.Restart()
		s.sentinels = append(s.sentinels, server)
	}
	for _, server := range s.sentinels {
		eventually(tb, server, func(ctx context.Context, c *redis.Client) bool {
			master, err := redis.NewSentinelClient(c.Options()).Master(ctx, Master).Result()
			return err == nil && master["num-other-sentinels"] == "2" && master["num-slaves"] == "1"
		})
	}
	follows(tb, s.servers[0])
	return s
}

// follows waits until a primary has a replica that is up to date.
func follows(tb testing.TB, primary *Server) {
	tb.Helper()
	eventually(tb, primary, func(ctx context.Context, c *redis.Client) bool {
		info, err := c.Info(ctx, "replication").Result()
		return err == nil && strings.Contains(info, "state=online")
	})
}

// Addrs are those of the Sentinels.
func (s *Sentinels) Addrs() []string {
	var addrs []string
	for _, server := range s.sentinels {
		addrs = append(addrs, server.addr)
	}
	return addrs
}

// KillPrimary ends the primary with SIGKILL; the Sentinels then promote the replica.
func (s *Sentinels) KillPrimary() { s.servers[0].Kill() }

// Promoted waits until the replica is the primary.
func (s *Sentinels) Promoted() { promoted(s.servers[1]) }

func promoted(server *Server) {
	server.tb.Helper()
	eventually(server.tb, server, func(ctx context.Context, c *redis.Client) bool {
		info, err := c.Info(ctx, "replication").Result()
		return err == nil && strings.Contains(info, "role:master")
	})
}

// slots is how many slots a cluster has; each primary has a third, in order.
const slots = 16384

// Cluster is a Redis Cluster of three primaries, each with a replica.
type Cluster struct {
	primaries, replicas [3]*Server
}

// StartCluster runs one until the test ends, and returns when all of its nodes say
// that it serves.
func StartCluster(tb testing.TB) *Cluster {
	tb.Helper()
	Need(tb)
	c := &Cluster{}
	var buses []string
	start := func() *Server {
		bus, err := freeport.Find(1)
		if err != nil {
			tb.Fatal(err)
		}
		buses = append(buses, fmt.Sprint(bus[0]))
		return Start(tb, "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-port", buses[len(buses)-1],
			"--cluster-node-timeout", "1500", "--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0")
	}
	for i := range c.primaries {
		c.primaries[i] = start()
	}
	for i := range c.replicas {
		c.replicas[i] = start()
	}
	all := append(c.primaries[:], c.replicas[:]...)
	var ids [3]string
	for i, server := range all {
		do(tb, server, func(ctx context.Context, client *redis.Client) error {
			if i < len(ids) {
				ids[i] = client.ClusterMyID(ctx).Val()
				if err := client.ClusterAddSlotsRange(ctx, slots*i/3, slots*(i+1)/3-1).Err(); err != nil {
					return err
				}
			}
			host, port, _ := net.SplitHostPort(c.primaries[0].addr)
			return client.Do(ctx, "CLUSTER", "MEET", host, port, buses[0]).Err()
		})
	}
	for i, server := range c.replicas {
		eventually(tb, server, func(ctx context.Context, client *redis.Client) bool {
			return client.ClusterReplicate(ctx, ids[i]).Err() == nil // fails until it has heard of it
		})
	}
	for _, server := range all {
		eventually(tb, server, func(ctx context.Context, client *redis.Client) bool {
			info, err := client.ClusterInfo(ctx).Result()
			nodes, nodesErr := client.ClusterNodes(ctx).Result()
			return err == nil && nodesErr == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:6") &&
				strings.Count(nodes, "slave ") == 3 && !strings.Contains(nodes, "handshake")
		})
	}
	for _, server := range c.primaries {
		follows(tb, server)
	}
	return c
}

// Addrs are those of all nodes.
func (c *Cluster) Addrs() []string {
	var addrs []string
	for _, server := range append(c.primaries[:], c.replicas[:]...) {
		addrs = append(addrs, server.addr)
	}
	return addrs
}

// Of returns which of the primaries a key was given to.
func (c *Cluster) Of(key string) (i int) {
	do(c.primaries[0].tb, c.primaries[0], func(ctx context.Context, client *redis.Client) error {
		slot, err := client.ClusterKeySlot(ctx, key).Result()
		for i < 2 && int(slot) >= slots*(i+1)/3 {
			i++
		}
		return err
	})
	return i
}

// KillPrimary ends one of the three primaries with SIGKILL; its replica then takes
// its slots over.
func (c *Cluster) KillPrimary(i int) { c.primaries[i].Kill() }

// Promoted waits until a primary's replica is one.
func (c *Cluster) Promoted(i int) { promoted(c.replicas[i]) }

// do makes calls to one server.
func do(tb testing.TB, server *Server, call func(context.Context, *redis.Client) error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := redis.NewClient(&redis.Options{Addr: server.addr})
	defer func() { _ = client.Close() }()
	if err := call(ctx, client); err != nil {
		tb.Fatalf("redistest: %s: %v", server.addr, err)
	}
}

// eventually waits until a server answers as it should.
func eventually(tb testing.TB, server *Server, good func(context.Context, *redis.Client) bool) {
	tb.Helper()
	do(tb, server, func(ctx context.Context, client *redis.Client) error {
		for !good(ctx, client) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
		}
		return nil
	})
}
