package conformance

import (
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/rpcstatus"
)

// Noise is an acknowledgement that is no news.
type Noise int

// The kinds of noise.
const (
	NoiseNone   Noise = iota
	NoiseRepeat       // what is acknowledged, three times more
	NoiseBack         // fewer than are acknowledged
	NoiseBeyond       // more than were sent
)

// Move is what the server does when a stream opens or a report comes. The zero
// Move takes it.
type Move struct {
	// End is the status with which the stream or call ends, EndOK that it ends
	// with OK before everything is acknowledged, Cut that its connection is
	// closed, Reject that the report is named as invalid.
	End    error
	EndOK  bool
	Cut    bool
	Reject bool
	// Acknowledge what came, this report included, before the end.
	Acknowledge bool
	// Refuse the report's first fix.
	Refuse bool
	// Mute the stream: nothing is acknowledged any more.
	Mute  bool
	Noise Noise
}

func (m Move) ends() bool { return m.End != nil || m.EndOK || m.Cut || m.Reject }

// Ending is what the client has to do about a move that ends its stream.
func (m Move) Ending() End {
	e := End{kind: endRetry, Unsure: m.Cut}
	switch {
	case m.Reject:
		e.kind = endReject
	case m.EndOK:
		e.kind = endDone
	case m.End != nil && !m.Cut:
		st := status.Convert(m.End)
		switch st.Code() {
		case codes.PermissionDenied, codes.Unimplemented, codes.FailedPrecondition, codes.NotFound:
			e.kind = endStop
		default:
		}
		for _, d := range st.Details() {
			if info, ok := d.(*errdetails.RetryInfo); ok {
				e.asked = info.GetRetryDelay().AsDuration()
			}
		}
	}
	return e
}

const domain = "ingest.starling.v1"

// refuseWith is a status with a reason; asked is its retry delay, if it is not zero.
func refuseWith(code codes.Code, reason string, asked time.Duration) error {
	r := rpcstatus.Reason{Domain: domain, Name: reason}
	if asked == 0 {
		return rpcstatus.Error(code, r, "the conformance server says so")
	}
	return rpcstatus.Error(code, r, "the conformance server says so", rpcstatus.RetryAfter(asked))
}

func rejection(number int) error {
	r := rpcstatus.Reason{Domain: domain, Name: "INVALID_REPORT", Metadata: map[string]string{"report_number": strconv.Itoa(number)}}
	return rpcstatus.Invalid(r, "report "+strconv.Itoa(number)+": ", rpcstatus.Violation("report", "the conformance server rejects it")).Err()
}

// Statuses that scenarios share with tests of the rules.
var (
	// Unavailable is a broken stream.
	Unavailable = status.Error(codes.Unavailable, "broken")
	// Denied is a status after which the client has to stop.
	Denied = refuseWith(codes.PermissionDenied, "NOT_PERMITTED", 0)

	// cutOff is what a cut stream ends with, which its client does not see.
	cutOff = status.Error(codes.Unavailable, "the connection is cut")
)

// Busy asks the client to come back.
func Busy(asked time.Duration) error { return refuseWith(codes.ResourceExhausted, "LOG_FULL", asked) }
