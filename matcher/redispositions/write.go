package redispositions

import (
	"context"
	"crypto/rand"
	_ "embed" // write.lua
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

const (
	// maxBatch bounds the vehicles of one call: Redis does nothing else meanwhile,
	// about 2 ms.
	maxBatch = 128
	// gather is how long the writer lets vehicles gather once nothing waits.
	gather = 10 * time.Millisecond
	// checkInterval is how often a writer that has nothing to write looks whether
	// Redis still has everything, and sweeps.
	checkInterval = time.Second
	// rewriteInterval is the least time between two rewrites because of failures.
	rewriteInterval = 10 * time.Second
	// sweepIDs bounds the ids that one call sweeps.
	sweepIDs = 256
	// expireVehicles bounds what is let go between two calls.
	expireVehicles = 1024
	// leastBackoff and mostBackoff bound the pause after failed calls.
	leastBackoff, mostBackoff = 50 * time.Millisecond, 2 * time.Second
	// maxGeoLatDeg is the largest latitude that a geo set of Redis takes.
	maxGeoLatDeg = 85.05112878
)

//go:embed write.lua
var script string

var write = redis.NewScript(script)

// drain writes until nothing waits or a call fails, and returns how long to wait
// before the next time. It makes one call at least, which looks for a loss.
func (s *Sink) drain(ctx context.Context) (pause time.Duration) {
	var batch []written
	for ctx.Err() == nil {
		epoch := int64(0)
		batch, epoch = s.take(batch[:0])
		if err := s.write(ctx, epoch, batch); err != nil {
			s.failed(ctx, batch, err)
			return retry.Backoff(leastBackoff, mostBackoff, s.failures)
		}
		if len(batch) < maxBatch && !s.waiting() {
			break
		}
	}
	return gather
}

// take returns the next batch and its epoch, and lets go of what nobody publishes.
func (s *Sink) take(batch []written) ([]written, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mirror.expire(s.now().Add(-s.keep), expireVehicles)
	return s.mirror.take(maxBatch, batch), s.mirror.epoch
}

func (s *Sink) waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mirror.queue) > 0
}

// write hands a batch to Redis and draws the conclusions from its answer.
func (s *Sink) write(ctx context.Context, epoch int64, batch []written) error {
	keys, args := s.call(epoch, batch)
	answer, err := write.Run(ctx, s.client, keys, args...).Slice()
	if err != nil {
		return err
	}
	nonce, counts, err := parse(answer)
	if err != nil {
		return err
	}
	s.failures = 0
	s.metrics.count(batch, counts, nonce == "", s.now())
	if nonce == "" {
		s.logger.Warn("Redis has positions of a later epoch, those of this log are not written", "epoch", epoch)
	}
	lost := nonce != "" && s.nonce != "" && nonce != s.nonce
	if nonce != "" {
		s.nonce = nonce
	}
	s.written(batch, lost)
	return nil
}

// written settles a batch, and has everything written again if Redis has lost it.
func (s *Sink) written(batch []written, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mirror.settle(batch)
	if !lost && (!s.suspect || s.now().Sub(s.rewritten) < rewriteInterval) {
		return
	}
	s.suspect, s.rewritten = false, s.now()
	s.mirror.enqueueAll(s.rewritten)
	s.metrics.rewrites.Inc()
	s.logger.Info("positions are written to Redis again", "vehicles", len(s.mirror.queue), "lost", lost)
}

// failed has a batch wait again.
func (s *Sink) failed(ctx context.Context, batch []written, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mirror.giveBack(batch)
	if ctx.Err() != nil {
		return
	}
	s.suspect = true
	s.failures++
	s.metrics.failures.Inc()
	s.logger.Warn("positions could not be written to Redis, they will be again", "error", err)
}

// call are the keys and arguments of write.lua for a batch.
func (s *Sink) call(epoch int64, batch []written) (names []string, args []any) {
	names = append(make([]string, 0, 4+len(batch)), s.keys.status, s.keys.fleet, s.keys.times, s.keys.former)
	args = append(make([]any, 0, 5+25*len(batch)), newNonce(), epoch, s.keep.Milliseconds(), s.keys.vehicle, sweepIDs)
	for i := range batch {
		names = append(names, s.keys.vehicle+batch[i].id)
		args = batch[i].arguments(args)
	}
	return names, args
}

func newNonce() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// arguments appends what the script is given of a vehicle.
func (w *written) arguments(args []any) []any {
	if w.gone {
		return append(args, w.id, w.source, "", "", 0)
	}
	fields := []any{
		"availability", name(w.derived), "reported_availability", name(w.reported),
		"dispatchable", w.dispatchable, "seen_time_ms", w.seenMS,
	}
	var lon, lat any = "", ""
	if w.timeMS != 0 {
		fields = append(fields, "lat", degrees(w.latDeg), "lon", degrees(w.lonDeg), "time_ms", w.timeMS)
		if w.latDeg >= -maxGeoLatDeg && w.latDeg <= maxGeoLatDeg {
			lon, lat = degrees(w.lonDeg), degrees(w.latDeg)
		}
		if w.hasSpeed {
			fields = append(fields, "speed_mps", short(w.speedMPS))
		}
		if w.hasHeading {
			fields = append(fields, "heading_deg", short(w.headingDeg))
		}
	}
	return append(append(args, w.id, w.source, lon, lat, len(fields)), fields...)
}

func degrees(v float64) string { return strconv.FormatFloat(v, 'f', 7, 64) }
func short(v float32) string   { return strconv.FormatFloat(float64(v), 'f', 2, 32) }

func name(a starlingv1.Availability) string {
	return strings.TrimPrefix(a.String(), "AVAILABILITY_")
}

// counts are what the script did: vehicles written, older than what Redis had,
// and swept.
type counts struct{ written, older, swept int64 }

var errAnswer = errors.New("the script's answer has another form")

func parse(answer []any) (nonce string, c counts, err error) {
	if len(answer) != 4 {
		return "", c, fmt.Errorf("%w: %d values", errAnswer, len(answer))
	}
	nonce, ok := answer[0].(string)
	for i, to := range []*int64{&c.written, &c.older, &c.swept} {
		n, is := answer[i+1].(int64)
		*to, ok = n, ok && is
	}
	if !ok {
		return "", counts{}, fmt.Errorf("%w: %v", errAnswer, answer)
	}
	return nonce, c, nil
}
