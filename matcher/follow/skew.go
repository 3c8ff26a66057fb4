package follow

import (
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"github.com/starling-fleet/starling/internal/throttle"
)

const (
	// skewSpan is how long the smallest delay of a record counts, up to twice as
	// long.
	skewSpan = time.Minute
	// skewAlarm is how far in the future a stamp must be to be reported.
	skewAlarm = time.Second
)

// skew compares this process' clock with the log's stamps: by the smallest time
// from a record's append to its being applied. A delay is never negative, so a
// negative one is the difference of two clocks. All but value are for one
// goroutine.
type skew struct {
	logger            *slog.Logger
	staleAfterMS      int64
	sinceMS           int64
	warning           throttle.Throttle
	current, previous int64 // the smallest delays, in milliseconds
	valueMS           atomic.Int64
}

func newSkew(logger *slog.Logger, staleAfter time.Duration) *skew {
	return &skew{logger: logger, warning: throttle.Throttle{Interval: skewSpan}, staleAfterMS: staleAfter.Milliseconds(), current: math.MaxInt64, previous: math.MaxInt64}
}

// note takes in the stamp of a record that is applied now.
func (s *skew) note(nowMS, appendMS int64) {
	delay := nowMS - appendMS
	if s.sinceMS == 0 || nowMS < s.sinceMS {
		s.sinceMS = nowMS
	}
	if nowMS-s.sinceMS >= skewSpan.Milliseconds() {
		s.previous, s.current, s.sinceMS = s.current, math.MaxInt64, nowMS
		if s.previous > s.staleAfterMS && s.previous != math.MaxInt64 {
			s.logger.Warn("every record of the last minute was old when it came: this clock is ahead of the log's, or the log's readers are behind", "smallest_delay", time.Duration(s.previous)*time.Millisecond)
		}
	}
	s.current = min(s.current, delay)
	s.valueMS.Store(min(s.current, s.previous))
	if delay >= -skewAlarm.Milliseconds() {
		return
	}
	if _, ok := s.warning.PassAt(time.UnixMilli(nowMS)); ok {
		s.logger.Warn("the log's stamps are in the future: this clock or the log's is wrong", "ahead", time.Duration(-delay)*time.Millisecond)
	}
}

// seconds is the smallest delay of the last minute or two.
func (s *skew) seconds() float64 { return float64(s.valueMS.Load()) / 1000 }
