package ingest

import (
	"cmp"
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

const (
	// stampInterval is the time between two looks at the log's stamps.
	stampInterval = 10 * time.Second
	// surpriseInterval is the same after a stamp that differs from those before,
	// so that a clock that was set is soon believed, and a stray stamp is not, and
	// while the log takes no appends.
	surpriseInterval = time.Second
	// stampWait bounds how long one waits for a record.
	stampWait = 5 * time.Second
	// judgeInterval is how often the metrics of the clocks are brought up to
	// date.
	judgeInterval = time.Second
	// doubtDelay is the least delay asked of a client that was turned away
	// because of the server's clock: it takes a person, or NTP, to mend it.
	doubtDelay = 10 * time.Second
	// warnInterval is the least time between two warnings about the clock.
	warnInterval = time.Minute
)

// Reader is what ingest needs of the log to see its stamps; eventlog.Log has
// it. A log without it leaves only the devices to compare the clock with.
type Reader interface {
	// Bounds returns the ends of all partitions of a topic, as in eventlog.Log.
	Bounds(ctx context.Context, topic string) ([]eventlog.Bounds, error)
	// NewReader reads partitions of a topic, as in eventlog.Log.
	NewReader(ctx context.Context, topic string, start map[int32]int64) (eventlog.Reader, error)
}

// watchStamps waits for a new record of one partition after the other, at once
// and then every stampInterval, until ctx is done. Where no client reports, the
// tracker's ticks are such records.
func (s *Server) watchStamps(ctx context.Context) {
	log, ok := s.log.(Reader)
	if !ok {
		return
	}
	for partition := int32(0); ; partition = (partition + 1) % s.partitions {
		wait := s.stampInterval
		surprise, err := s.awaitStamp(ctx, log, partition)
		if err != nil && ctx.Err() == nil {
			s.logger.Debug("no append time of the log was seen", "partition", partition, "error", err)
		}
		if surprise || s.appends.failing() != nil {
			wait = min(wait, surpriseInterval)
		}
		if retry.Sleep(ctx, wait) != nil {
			return
		}
	}
}

// awaitStamp waits for a record that is not in the log yet: its append time is
// the log's time now, and the log has taken it. It returns whether the time differs
// from the ones before. A log that can't be asked takes no appends either.
func (s *Server) awaitStamp(ctx context.Context, log Reader, partition int32) (surprise bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, stampWait)
	defer cancel()
	bounds, err := log.Bounds(ctx, topics.Locations)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			s.appends.failed(err)
		}
		return false, err
	}
	r, err := log.NewReader(ctx, topics.Locations, map[int32]int64{partition: bounds[partition].End})
	if err != nil {
		return false, err
	}
	batch, err := r.Poll(ctx)
	if n := len(batch.Records); err == nil && n > 0 {
		s.appends.settled(nil)
		surprise = s.clocks.stamped(batch.Records[n-1].AppendTimeMS, s.clocks.monoMS())
	}
	return surprise, errors.Join(err, r.Close())
}

// noteClock notes the device time by which a vehicle's clock is judged: its newest
// that agrees with the server's clock, else its newest.
func (s *Server) noteClock(r *wire.Report, now moment) {
	var newest, inLine int64
	nowMS := now.wall.UnixMilli()
	for i := range r.Fixes {
		ms := r.Fixes[i].DeviceTimeMS
		newest = max(newest, ms)
		if abs(ms-nowMS) <= s.clocks.maxAhead {
			inLine = max(inLine, ms)
		}
	}
	// A time beyond the year 3000 is no clock's; it also would not fit.
	const year3000MS = 32_503_680_000_000
	if ms := cmp.Or(inLine, newest); ms > 0 && ms < year3000MS {
		s.clocks.reported(r.VehicleID, ms, now)
	}
}

// timeRefusalDoubtful returns the status that ends a stream or call whose
// report breaks a rule of time when that may be the server's own fault, or nil.
func (s *Server) timeRefusalDoubtful(refusals []wire.FixRefusal) error {
	ahead, old := false, false
	for i := range refusals {
		switch refusals[i].Reason {
		case refusedAhead:
			ahead = true
		case refusedOld:
			old = true
		}
	}
	if !ahead && !old {
		return nil
	}
	v := s.clocks.judge()
	if !v.keepsBack(ahead) {
		return nil
	}
	s.metrics.reportsKeptBack.Inc()
	s.showClock(v)
	return s.retryAfter(doubtDelay, codes.Unavailable, reasonClockInDoubt,
		"a device time breaks a rule, but the server's clock is in doubt")
}

// judgeClock brings what is shown of the clock up to date.
func (s *Server) judgeClock(now int64) {
	if now-s.judgedAt < int64(judgeInterval) {
		return
	}
	s.judgedAt = now
	s.showClock(s.clocks.judge())
}

func (s *Server) showClock(v verdict) {
	m := s.metrics
	m.logSkew.Set(float64(v.logSkewMS) / 1000)
	m.deviceSkew.Set(float64(v.deviceSkewMS) / 1000)
	m.doubtByLog.Set(oneIf(v.byLog))
	m.doubtByDevices.Set(oneIf(v.byDevices))
	if !v.inDoubt() {
		return
	}
	if _, ok := s.clockWarning.PassAt(time.UnixMilli(s.clocks.monoMS())); ok {
		s.logger.Warn("this server's clock is in doubt: refusals for a device time are kept back until it is mended",
			"log_ahead_s", float64(v.logSkewMS)/1000, "devices_ahead_s", float64(v.deviceSkewMS)/1000,
			"contradicted_by_log", v.byLog, "contradicted_by_devices", v.byDevices)
	}
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
