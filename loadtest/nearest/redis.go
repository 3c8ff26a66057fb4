package nearest

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/starling-fleet/starling/internal/freeport"
	"github.com/starling-fleet/starling/loadtest/process"
)

// redisKey is the sorted set that holds the fleet.
const redisKey = "fleet"

// redisTarget is a redis-server of its own that keeps nothing on disk.
type redisTarget struct {
	*process.Process
	opts  *Options
	dir   string
	addr  string
	done  atomic.Int64 // updates
	mu    sync.Mutex
	conns []*redis.Client // guarded by mu
}

func startRedis(ctx context.Context, o *Options) (*redisTarget, error) {
	addrs, err := freeport.Addrs(1)
	if err != nil {
		return nil, err
	}
	r := &redisTarget{opts: o, addr: addrs[0]}
	host, port, err := net.SplitHostPort(r.addr)
	if err != nil {
		return nil, err
	}
	if r.dir, err = os.MkdirTemp(o.WorkDir, "starling-nearest-redis-"); err != nil {
		return nil, fmt.Errorf("make a folder for Redis: %w", err)
	}
	r.Process = process.New(process.Spec{Name: "redis-server", Command: []string{
		o.Redis, "--bind", host, "--port", port, "--dir", r.dir, "--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning",
	}})
	if err := r.Start(); err != nil {
		_ = os.RemoveAll(r.dir)
		return nil, fmt.Errorf("%w (Debian: apt-get install redis-server)", err)
	}
	if err := r.waitReady(ctx); err != nil {
		_ = r.stop()
		return nil, err
	}
	return r, nil
}

func (r *redisTarget) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	conn := r.connect()
	for {
		err := conn.Ping(ctx).Err()
		if err == nil {
			return nil
		}
		select {
		case <-r.Ended():
			return fmt.Errorf("redis-server ended before it served: %s", r.LastOutput())
		case <-ctx.Done():
			return fmt.Errorf("redis-server does not serve: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (r *redisTarget) connect() *redis.Client {
	conn := redis.NewClient(&redis.Options{
		Addr: r.addr, PoolSize: 1, MaxRetries: -1,
		ReadTimeout: time.Minute, WriteTimeout: time.Minute, PoolTimeout: time.Minute,
		DisableIdentity: true,
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns = append(r.conns, conn)
	return conn
}

func (r *redisTarget) name() string { return "redis" }

func (r *redisTarget) fill(ctx context.Context, fleet []vehicle) error {
	conn := r.connect()
	for len(fleet) > 0 {
		n := min(len(fleet), 1000)
		if err := r.add(ctx, conn, n, func(i int) *vehicle { return &fleet[i] }); err != nil {
			return err
		}
		fleet = fleet[n:]
	}
	return nil
}

// add sends the places of n vehicles in one pipeline.
func (r *redisTarget) add(ctx context.Context, conn *redis.Client, n int, vehicleOf func(i int) *vehicle) error {
	pipe := conn.Pipeline()
	nowMS := time.Now().UnixMilli()
	for i := range n {
		v := vehicleOf(i)
		v.drive(nowMS)
		pipe.GeoAdd(ctx, redisKey, &redis.GeoLocation{Name: v.id, Longitude: v.lonDeg, Latitude: v.latDeg})
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("GEOADD: %w", err)
	}
	r.done.Add(int64(n))
	return nil
}

func (r *redisTarget) update(ctx context.Context, fleet []vehicle, perSecond int) error {
	conn := r.connect()
	shuffled, p := newShuffle(len(fleet), 0), newPace(float64(perSecond))
	return eachTick(ctx, time.Millisecond, 0, func() (bool, error) {
		n := p.due(r.opts.RedisPipeline)
		if n == 0 {
			return false, nil
		}
		err := r.add(context.WithoutCancel(ctx), conn, n, func(int) *vehicle { return &fleet[shuffled.next()] })
		return n == r.opts.RedisPipeline, err
	})
}

func (r *redisTarget) updated(context.Context) (float64, error) { return float64(r.done.Load()), nil }

func (r *redisTarget) searchers(n int) ([]searcher, error) {
	out := make([]searcher, n)
	for i := range out {
		out[i] = &redisSearcher{conn: r.connect(), query: redis.GeoSearchLocationQuery{
			GeoSearchQuery: redis.GeoSearchQuery{Radius: r.opts.RadiusM, RadiusUnit: "m", Sort: "ASC", Count: r.opts.Results},
			WithCoord:      true, WithDist: true,
		}}
	}
	return out, nil
}

type redisSearcher struct {
	conn  *redis.Client
	query redis.GeoSearchLocationQuery
}

func (s *redisSearcher) search(ctx context.Context, q query) (int, error) {
	s.query.Latitude, s.query.Longitude = q.latDeg, q.lonDeg
	found, err := s.conn.GeoSearchLocation(ctx, redisKey, &s.query).Result()
	if err != nil {
		return 0, fmt.Errorf("GEOSEARCH: %w", err)
	}
	for i := 1; i < len(found); i++ {
		if found[i].Dist < found[i-1].Dist {
			return 0, fmt.Errorf("GEOSEARCH: %s is before %s, which is nearer", found[i-1].Name, found[i].Name)
		}
	}
	return len(found), nil
}

func (r *redisTarget) cpu() (time.Duration, error) { return r.CPU() }
func (r *redisTarget) memory() int64               { return r.Memory("VmRSS") }

func (r *redisTarget) stop() error {
	for _, c := range r.conns {
		_ = c.Close()
	}
	err := r.StopWithin(20 * time.Second)
	_ = os.RemoveAll(r.dir)
	return err
}
