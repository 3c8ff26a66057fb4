package conformance

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Rule is a rule of docs/driver-protocol.md by its short name.
type Rule string

// The rules, as docs/conformance.md has them.
const (
	RuleDelivered Rule = "delivered" // everything is acknowledged before the client says that it is done
	RuleContent   Rule = "content"   // what arrives is what the client was given
	RuleNames     Rule = "names"     // vehicle, session and sequence are stated
	RuleSession   Rule = "session"   // one session of a vehicle for each life of the queue
	RuleNumbers   Rule = "numbers"   // a number is used for one report, and a report has one number
	RuleOrder     Rule = "order"     // in order of sequence, without gaps
	RuleResend    Rule = "resend"    // a new stream begins at the oldest unacknowledged report
	RuleForget    Rule = "forget"    // what is acknowledged or rejected is not sent again
	RuleDepth     Rule = "depth"     // at most 64 unacknowledged
	RuleBounds    Rule = "bounds"    // fixes and bytes of a report
	RuleBackoff   Rule = "backoff"   // waits between attempts grow, and are as long as the server asks
	RuleJitter    Rule = "jitter"    // waits between attempts are random
	RuleStop      Rule = "stop"      // no further attempt where sending again can't help
	RuleToken     Rule = "token"     // every call proves who makes it
)

// Breach is one rule broken.
type Breach struct {
	Rule Rule   `json:"rule"`
	Text string `json:"text"`
}

// What is kept of a client that breaks everything is bounded.
const (
	maxBreaches = 20
	// maxArrivals is how many arrivals of reports are judged; the longest
	// scenario has some hundred.
	maxArrivals = 200_000
)

// Counts are what a judge has seen.
type Counts struct {
	Reports int `json:"reports"` // different ones that arrived
	Resent  int `json:"resent"`  // arrivals of a report after its first
	Streams int `json:"streams"`
	Calls   int `json:"calls"` // unary
}

// Judge holds one client to the protocol by what its server sees. It is safe for
// concurrent use; events have to be told in the order in which they happened:
// what is acknowledged, before it is sent.
type Judge struct {
	now func() time.Time

	mu       sync.Mutex
	feed     map[string][]*line // by vehicle
	fed      int
	next     map[string]int // of a vehicle's feed, the line that comes next
	lanes    map[laneKey]*lane
	current  map[string]laneKey // the session of a vehicle in this process
	paces    map[string]*pace
	firsts   []time.Duration // waits after a first failure
	open     int             // streams and calls
	counts   Counts
	breaches []Breach
	more     int // breaches beyond maxBreaches
}

type laneKey struct {
	vehicle string
	session uint64
}

// line is a report of the feed.
type line struct {
	report  *starlingv1.Report
	arrived bool
	settled bool
}

// lane is the reports of one vehicle and session, by sequence from 1.
type lane struct {
	key     laneKey
	reports []*arrival
	calls   int // unary, that are not answered
}

// arrival is a report that has come at least once.
type arrival struct {
	body [sha256.Size]byte // of what it says, without its names
	line *line
	// settled reports are acknowledged or rejected; sure is false if the client
	// need not know.
	settled, sure bool
}

// oldest is the sequence of the oldest report that is not settled, or the one
// that comes next.
func (l *lane) oldest() int64 {
	for i, a := range l.reports {
		if !a.settled {
			return int64(i) + 1
		}
	}
	return int64(len(l.reports)) + 1
}

// NewJudge returns a judge of a client that was given a feed. A nil clock is the
// real one.
func NewJudge(feed []*starlingv1.Report, now func() time.Time) *Judge {
	if now == nil {
		now = time.Now
	}
	j := &Judge{
		now: now, feed: map[string][]*line{}, fed: len(feed), next: map[string]int{},
		lanes: map[laneKey]*lane{}, current: map[string]laneKey{}, paces: map[string]*pace{},
	}
	for _, r := range feed {
		j.feed[r.GetVehicleId()] = append(j.feed[r.GetVehicleId()], &line{report: r})
	}
	return j
}

func (j *Judge) breach(rule Rule, format string, args ...any) {
	if len(j.breaches) == maxBreaches {
		j.more++
		return
	}
	j.breaches = append(j.breaches, Breach{rule, fmt.Sprintf(format, args...)})
}

// Breach records a breach that the server has seen itself.
func (j *Judge) Breach(rule Rule, format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.breach(rule, format, args...)
}

// ProcessStarted begins another life of the client: it has nothing of the former
// but what it kept on disk.
func (j *Judge) ProcessStarted() {
	j.mu.Lock()
	defer j.mu.Unlock()
	clear(j.current)
	clear(j.paces)
}

// report judges a report with its names as it arrives for the first or a further
// time, and returns its lane and sequence; nil if it has none. The first report of
// a stream, or one in a call, comes after what the client knows to be acknowledged.
func (j *Judge) report(r *starlingv1.Report, bytes int, first bool) (*lane, int64) {
	seq := r.GetSequence()
	if j.counts.Reports+j.counts.Resent >= maxArrivals {
		return nil, 0
	}
	if r.GetVehicleId() == "" || r.GetSessionId() == 0 || seq < 1 {
		j.breach(RuleNames, "a report has vehicle_id %q, session_id %d, sequence %d: all three are needed", r.GetVehicleId(), r.GetSessionId(), seq)
		return nil, 0
	}
	j.bounds(r, bytes)
	l := j.lane(laneKey{r.GetVehicleId(), r.GetSessionId()})
	body := &starlingv1.Report{VehicleId: r.GetVehicleId(), Fixes: r.GetFixes(), Availability: r.GetAvailability(), Attributes: r.GetAttributes()}
	switch newest := int64(len(l.reports)); {
	case seq <= newest:
		j.counts.Resent++
		if a := l.reports[seq-1]; a.body != digest(body) {
			j.breach(RuleNumbers, "%s is not the report that was sent under this number before", l.name(seq))
		}
	case seq == newest+1:
		j.counts.Reports++
		l.reports = append(l.reports, &arrival{body: digest(body), line: j.fedLine(l, seq, body)})
	case first:
		j.breach(RuleResend, "%s comes first, though nothing after %d has come yet", l.name(seq), newest)
		return nil, 0
	default:
		j.breach(RuleOrder, "%s follows %d: every report takes the next number", l.name(seq), newest)
		return nil, 0
	}
	return l, seq
}

// digest is the same for the same content.
func digest(body *starlingv1.Report) [sha256.Size]byte {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(body)
	if err != nil {
		return [sha256.Size]byte{} // such as a text that is no UTF-8, which is nothing that was fed
	}
	return sha256.Sum256(encoded)
}

func (l *lane) name(seq int64) string {
	return fmt.Sprintf("report %d of %s in session %d", seq, l.key.vehicle, l.key.session)
}

func (j *Judge) bounds(r *starlingv1.Report, bytes int) {
	if n := len(r.GetFixes()); n > limits.MaxFixesPerReport {
		j.breach(RuleBounds, "a report has %d fixes, at most %d are taken", n, limits.MaxFixesPerReport)
	}
	if bytes > limits.MaxReportBytes {
		j.breach(RuleBounds, "a report has %d bytes, at most %d are taken", bytes, limits.MaxReportBytes)
	}
	times := map[int64]bool{}
	for _, f := range r.GetFixes() {
		if times[f.GetDeviceTimeMs()] {
			j.breach(RuleBounds, "device time %d stands twice in a report", f.GetDeviceTimeMs())
		}
		times[f.GetDeviceTimeMs()] = true
	}
}

// lane finds a report's lane, and judges a new one.
func (j *Judge) lane(key laneKey) *lane {
	if former, ok := j.current[key.vehicle]; ok && former != key {
		j.breach(RuleSession, "%s reports in session %d after session %d, in one life of its queue", key.vehicle, key.session, former.session)
	}
	j.current[key.vehicle] = key
	l := j.lanes[key]
	if l == nil {
		l = &lane{key: key}
		j.lanes[key] = l
	}
	return l
}

// fedLine finds what the client was given for a report that is new; nil if nothing.
func (j *Judge) fedLine(l *lane, seq int64, body *starlingv1.Report) *line {
	fed, next := j.feed[l.key.vehicle], j.next[l.key.vehicle]
	if next < len(fed) && proto.Equal(fed[next].report, body) {
		j.next[l.key.vehicle]++
		fed[next].arrived = true
		return fed[next]
	}
	for i, other := range fed {
		if !proto.Equal(other.report, body) {
			continue
		}
		if other.arrived {
			j.breach(RuleNumbers, "%s was sent before under another number", l.name(seq))
			return other
		}
		j.breach(RuleOrder, "%s is line %d of the vehicle's feed, line %d comes next", l.name(seq), i+1, next+1)
		j.next[l.key.vehicle] = i + 1
		other.arrived = true
		return other
	}
	if next < len(fed) {
		j.breach(RuleContent, "%s is not what the client was given: {%v} instead of {%v}", l.name(seq), body, fed[next].report)
	} else {
		j.breach(RuleContent, "%s is more than the client was given: {%v}", l.name(seq), body)
	}
	return nil
}

// settle marks a report acknowledged or rejected.
func (l *lane) settle(seq int64, sure bool) {
	a := l.reports[seq-1]
	a.settled = true
	a.sure = a.sure || sure
	if a.line != nil {
		a.line.settled = true
	}
}

// Done reports whether everything of the feed is settled and nothing is open.
func (j *Judge) Done() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.open == 0 && j.unsettled() == 0
}

func (j *Judge) unsettled() (n int) {
	for _, fed := range j.feed {
		for _, l := range fed {
			if !l.settled {
				n++
			}
		}
	}
	return n
}

// Exited judges the client's end: with code 0 it has said that the first n reports
// of the feed are delivered.
func (j *Judge) Exited(code, n int, stops bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case stops && code == 0:
		j.breach(RuleStop, "the client ended with exit code 0, though its reports were not taken")
	case stops:
	case code != 0:
		j.breach(RuleDelivered, "the client ended with exit code %d", code)
	}
	if left := j.unsettled() - (j.fed - n); !stops && left > 0 {
		j.breach(RuleDelivered, "%d of %d reports were not acknowledged when the client ended", left, n)
	}
}

// Result returns what was seen.
func (j *Judge) Result() (Counts, []Breach) {
	j.mu.Lock()
	defer j.mu.Unlock()
	breaches := append([]Breach{}, j.breaches...)
	if b := j.judgeJitter(); b != nil {
		breaches = append(breaches, *b)
	}
	if j.more > 0 && len(breaches) > 0 {
		breaches[len(breaches)-1].Text += fmt.Sprintf(" (and %d more)", j.more)
	}
	return j.counts, breaches
}
