package events

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// pingInterval is how often a Redis is asked whether it is there.
const pingInterval = time.Second

// Redis is a store between processes. Of each ride there is a capped stream under
// {prefix}{epoch}:ride:{name}, whose ids are "{sequence}-0", and a channel
// {prefix}{epoch}:events:{name} on which a message is "{sequence} {value}". A log
// whose epoch was raised has keys of its own.
type Redis struct {
	client         redis.UniversalClient
	bounds         Bounds
	stream, events string // what keys and channels begin with
	pushes         *redis.PubSub
	healthy        atomic.Bool
}

// NewRedis returns a store on a Redis, which the caller closes after Run. The
// epoch is the log's.
func NewRedis(client redis.UniversalClient, prefix string, epoch int64, bounds Bounds) *Redis {
	base := prefix + strconv.FormatInt(epoch, 10)
	r := &Redis{client: client, bounds: bounds, stream: base + ":ride:", events: base + ":events:"}
	r.pushes = client.Subscribe(context.Background())
	return r
}

// maxPipeline bounds the messages of one round trip.
const maxPipeline = 500

// Publish implements Store.
func (r *Redis) Publish(ctx context.Context, messages []Message) error {
	for len(messages) > 0 {
		n := min(len(messages), maxPipeline)
		if err := r.publish(ctx, messages[:n]); err != nil {
			r.healthy.Store(false)
			return fmt.Errorf("publish events to Redis: %w", err)
		}
		messages = messages[n:]
	}
	return nil
}

func (r *Redis) publish(ctx context.Context, messages []Message) error {
	pipe := r.client.Pipeline()
	for _, m := range messages {
		key, id := r.stream+m.Ride, strconv.FormatInt(m.Sequence, 10)
		pipe.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: id + "-0", MaxLen: int64(r.bounds.PerRide), Values: []any{"e", m.Value}})
		pipe.PExpire(ctx, key, r.bounds.Keep)
		// In a cluster any node may take it; but only the messages of one come in order.
		pipe.Publish(ctx, r.events+m.Ride, append([]byte(id+" "), m.Value...)).SetFirstKeyPos(1)
	}
	commands, err := pipe.Exec(ctx)
	if err == nil {
		return nil
	}
	var failures []error
	for _, c := range commands {
		if err := c.Err(); err != nil && !isRepetition(err) {
			failures = append(failures, err)
		}
	}
	if len(failures) == 0 {
		return nil
	}
	return failures[0]
}

// isRepetition returns whether a stream has the event, or one behind it, already:
// a new owner publishes again what it reads.
func isRepetition(err error) bool {
	return strings.Contains(err.Error(), "equal or smaller than the target stream top item")
}

// Since implements Store.
func (r *Redis) Since(ctx context.Context, ride string, after int64) ([]Message, error) {
	entries, err := r.client.XRange(ctx, r.stream+ride, "("+strconv.FormatInt(after, 10)+"-0", "+").Result()
	if err != nil {
		return nil, fmt.Errorf("read events from Redis: %w", err)
	}
	since := make([]Message, 0, len(entries))
	for _, e := range entries {
		number, _, _ := strings.Cut(e.ID, "-")
		sequence, err := strconv.ParseInt(number, 10, 64)
		value, ok := e.Values["e"].(string)
		if err != nil || !ok || sequence <= after {
			continue // none of ours
		}
		since = append(since, Message{Ride: ride, Sequence: sequence, Value: []byte(value)})
	}
	return since, nil
}

// Subscribe implements Store. While Redis is gone it fails, and the subscription
// is made when Redis is back.
func (r *Redis) Subscribe(ctx context.Context, ride string) error {
	return wrap("subscribe to events in Redis", r.pushes.Subscribe(ctx, r.events+ride))
}

// Unsubscribe implements Store.
func (r *Redis) Unsubscribe(ctx context.Context, ride string) error {
	return wrap("end a subscription in Redis", r.pushes.Unsubscribe(ctx, r.events+ride))
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Run implements Store.
func (r *Redis) Run(ctx context.Context, deliver func(Message)) error {
	pinging := make(chan struct{})
	go func() { defer close(pinging); r.ping(ctx) }()
	defer func() { <-pinging }()
	defer context.AfterFunc(ctx, func() { _ = r.pushes.Close() })()
	// A channel that nobody publishes to keeps the connection, and so its health
	// checks, when no ride is followed. Its failure is found by ping.
	_ = r.pushes.Subscribe(ctx, r.events)
	for incoming := range r.pushes.ChannelWithSubscriptions(redis.WithChannelSize(maxPending), redis.WithChannelHealthCheckInterval(3*time.Second)) {
		switch m := incoming.(type) {
		case *redis.Subscription:
			// Also after each new connection: what was pushed in between is missed.
			if ride := strings.TrimPrefix(m.Channel, r.events); ride != "" && m.Kind == "subscribe" {
				deliver(Message{Ride: ride})
			}
		case *redis.Message:
			if x, ok := r.parse(m); ok {
				deliver(x)
			}
		}
	}
	if ctx.Err() == nil {
		return errors.New("the subscription to Redis has ended")
	}
	return nil
}

// parse reads a pushed message; what is not one of ours is dropped.
func (r *Redis) parse(m *redis.Message) (Message, bool) {
	number, value, ok := strings.Cut(m.Payload, " ")
	sequence, err := strconv.ParseInt(number, 10, 64)
	ride := strings.TrimPrefix(m.Channel, r.events)
	return Message{Ride: ride, Sequence: sequence, Value: []byte(value)}, ok && err == nil && sequence > 0 && ride != ""
}

// ping watches over the health of the connection.
func (r *Redis) ping(ctx context.Context) {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		asking, cancel := context.WithTimeout(ctx, pingInterval)
		r.healthy.Store(r.client.Ping(asking).Err() == nil)
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Healthy implements Store.
func (r *Redis) Healthy() bool { return r.healthy.Load() }

// Shared implements Store.
func (r *Redis) Shared() bool { return true }
