package conformance

import (
	"fmt"
	"slices"
	"time"
)

// The waits of docs/driver-protocol.md.
const (
	leastBackoff = 200 * time.Millisecond
	mostBackoff  = 30 * time.Second
	// A wait is measured at the server, where it is never shorter than at the
	// client; the tolerance is for clocks that tick coarsely.
	waitTolerance = 5 * time.Millisecond
	// So many waits after a first failure are judged for being random: they are
	// spread over 100 ms, and the chance that so many lie within jitterSpread is
	// below 1 in 50,000.
	jitterSamples = 12
	jitterSpread  = 30 * time.Millisecond
)

// pace is when a client may try again: for all of its streams, or for the unary
// calls of one vehicle.
type pace struct {
	failures int
	endedAt  time.Time
	asked    time.Duration
	kind     endKind
}

// endKind is what the end of a stream asks of the client.
type endKind int

const (
	endDone   endKind = iota // the client's own end, or one after which it may come back at once
	endRetry                 // wait, then send again
	endReject                // one report is at fault: set it aside, come back at once
	endStop                  // sending again can't help
)

// End is how a stream or call has ended.
type End struct {
	kind endKind
	// asked is the retry delay that the status carries.
	asked time.Duration
	// Unsure: the connection was cut or the client gave up, so that it may have
	// missed the last acknowledgements.
	Unsure bool
}

// began judges an attempt.
func (j *Judge) began(key string) *pace {
	p := j.paces[key]
	if p == nil {
		p = &pace{}
		j.paces[key] = p
	}
	if p.endedAt.IsZero() {
		return p
	}
	waited := j.now().Sub(p.endedAt)
	switch p.kind {
	case endStop:
		j.breach(RuleStop, "the client tried again %s after a status that means that sending again can't help", waited.Round(time.Millisecond))
	case endRetry:
		full := min(mostBackoff, leastBackoff<<min(p.failures-1, 20))
		least := max(full/2, p.asked)
		if waited < least-waitTolerance {
			j.breach(RuleBackoff, "attempt %d came after %s: it has to wait at least %s", p.failures, waited.Round(time.Millisecond), least)
		}
		if p.failures == 1 && p.asked == 0 {
			j.firsts = append(j.firsts, waited)
		}
	case endDone, endReject:
	}
	p.endedAt = time.Time{}
	return p
}

// end notes how an attempt ended.
func (j *Judge) end(p *pace, e End) {
	if e.kind == endRetry {
		p.failures++
	}
	p.endedAt, p.asked, p.kind = j.now(), e.asked, e.kind
}

// judgeJitter judges the waits after a first failure, if there are enough.
func (j *Judge) judgeJitter() *Breach {
	if len(j.firsts) < jitterSamples {
		return nil
	}
	least, most := slices.Min(j.firsts), slices.Max(j.firsts)
	if most-least >= jitterSpread {
		return nil
	}
	return &Breach{RuleJitter, fmt.Sprintf("%d waits after a first failure lie between %s and %s: they have to be random between 100 ms and 200 ms",
		len(j.firsts), least.Round(time.Millisecond), most.Round(time.Millisecond))}
}
