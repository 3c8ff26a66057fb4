package ridedrill

import (
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/loadtest/ridedrill/check"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// history is what the clients did and were answered, with the times at which they
// called and were answered.
type history struct {
	began time.Time

	mu       sync.Mutex
	journeys map[string]*journey
	order    []string // their names as they began
	followed []*following
}

// following is what one follower was sent of a ride. Its follower alone writes it.
type following struct {
	ride        string
	connections []check.Connection
	whole       bool // whether its end was seen
}

// journey is a ride as its clients see it. The history's lock guards it.
type journey struct {
	name  string
	steps []step
	// position is the largest that anybody was acknowledged, -1 before the first.
	position            int64
	partition           int32
	acknowledged        []check.Call
	events              []heardEvent
	partial, endedSeen  bool
	requestedNS, leftNS int64
	// left is when somebody first asked for an attempt's end.
	left map[string]int64
}

// heardEvent is an event that a subscriber was sent.
type heardEvent struct {
	event *starlingv1.RideEvent
	atNS  int64
}

// stepKind is what a step of a ride's history is.
type stepKind uint8

const (
	requestStep stepKind = iota
	cancelStep
	getStep
)

// step is one try of a call about a ride. Times are since the drill's begin.
type step struct {
	kind     stepKind
	callNS   int64
	returnNS int64
	known    bool  // whether it was answered
	position int64 // of an acknowledged call; up to where a get has read
	after    int64 // the position that a get was to wait for
	found    bool
	phase    starlingv1.RidePhase
}

func newHistory() *history { return &history{began: time.Now(), journeys: make(map[string]*journey)} }

func (h *history) now() int64 { return time.Since(h.began).Nanoseconds() }

func (h *history) begin(name string) *journey {
	h.mu.Lock()
	defer h.mu.Unlock()
	j := &journey{name: name, position: -1, requestedNS: h.now(), left: make(map[string]int64)}
	h.journeys[name] = j
	h.order = append(h.order, name)
	return j
}

// recent draws one of the rides that were begun last; empty when there is none.
func (h *history) recent(rng *rand.Rand, among int) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := min(among, len(h.order))
	if n == 0 {
		return ""
	}
	return h.order[len(h.order)-1-rng.IntN(n)]
}

func (h *history) follows(f *following) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.followed = append(h.followed, f)
}

// called notes one try of a request or a cancellation.
func (h *history) called(j *journey, c check.Call, beganNS int64, known bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := step{kind: requestStep, callNS: beganNS, returnNS: h.now(), known: known, position: c.Offset}
	if c.Order == nil {
		s.kind = cancelStep
		if j.leftNS == 0 {
			j.leftNS = beganNS
		}
	}
	j.steps = append(j.steps, s)
	if known {
		j.position, j.partition = max(j.position, c.Offset), c.Partition
		j.acknowledged = append(j.acknowledged, c)
	}
}

// known is the position of the last call that was acknowledged, nil if none.
func (h *history) known(j *journey) *starlingv1.RidePosition {
	h.mu.Lock()
	defer h.mu.Unlock()
	if j.position < 0 {
		return nil
	}
	return &starlingv1.RidePosition{Partition: j.partition, Offset: j.position}
}

// got notes the answer to a get that waited for a position; ride is nil when there
// was none.
func (h *history) got(j *journey, ride *starlingv1.Ride, after *starlingv1.RidePosition, beganNS int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	j.steps = append(j.steps, step{
		kind: getStep, callNS: beganNS, returnNS: h.now(), known: true, position: ride.GetPosition().GetOffset(), after: after.GetOffset(),
		found: ride != nil, phase: ride.GetPhase(),
	})
}

func (h *history) heard(j *journey, e *starlingv1.RideEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.GetOrder() != nil {
		e = proto.Clone(e).(*starlingv1.RideEvent)
		e.Order = nil // compared in the log
	}
	j.events = append(j.events, heardEvent{e, h.now()})
}

// missed notes that a loss was announced to a subscriber: what it heard is not whole.
func (h *history) missed(j *journey) {
	h.mu.Lock()
	defer h.mu.Unlock()
	j.partial = true
}

func (h *history) ended(j *journey) {
	h.mu.Lock()
	defer h.mu.Unlock()
	j.endedSeen = true
}

// leaving notes that a driver is about to end an attempt.
func (h *history) leaving(ride, vehicle string, attempt *starlingv1.Attempt) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if j := h.journeys[strings.TrimPrefix(ride, "rides/")]; j != nil {
		key := attemptKey(vehicle, attempt)
		if _, before := j.left[key]; !before {
			j.left[key] = h.now()
		}
	}
}

func attemptKey(vehicle string, a *starlingv1.Attempt) string { return vehicle + " " + a.String() }
