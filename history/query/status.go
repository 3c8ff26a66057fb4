package query

import (
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/starling-fleet/starling/internal/request"
	"github.com/starling-fleet/starling/internal/rpcstatus"
)

// domain is the domain of google.rpc.ErrorInfo in the service's statuses.
const domain = "history.starling.v1"

// Reasons of google.rpc.ErrorInfo.
const (
	reasonInvalid      = "INVALID_REQUEST"
	reasonTooManyScans = "TOO_MANY_SCANS"
	reasonTooLong      = "CALL_TOO_LONG"
	reasonStoreFailed  = "STORE_UNAVAILABLE"
	reasonNoFix        = "FIX_NOT_FOUND"
	reasonImprecise    = "PRECISION_NOT_PERMITTED"
)

// retryDelay is what clients are asked to wait that were refused for the moment.
const retryDelay = time.Second

// refusal is a status and its reason.
type refusal struct {
	reason string
	err    error
}

func refuse(code codes.Code, reason, message string, retry bool) refusal {
	r := rpcstatus.Reason{Domain: domain, Name: reason}
	if retry {
		return refusal{reason, rpcstatus.Error(code, r, message, rpcstatus.RetryAfter(retryDelay))}
	}
	return refusal{reason, rpcstatus.Error(code, r, message)}
}

func tooManyScans(message string) refusal {
	return refuse(codes.ResourceExhausted, reasonTooManyScans, message, true)
}

func tooLong(limit time.Duration) refusal {
	return refuse(codes.DeadlineExceeded, reasonTooLong,
		fmt.Sprintf("the call took longer than %s: go on with the token of the last part, or ask for a shorter time or a smaller area", limit), false)
}

func storeFailed() refusal {
	return refuse(codes.Unavailable, reasonStoreFailed, "history's store did not answer", true)
}

func imprecise(field, rule string) refusal {
	return refuse(codes.PermissionDenied, reasonImprecise, field+": without the scope history:precise "+rule, false)
}

// faults collects what is wrong with a request: every field and its rule.
type faults struct{ request.Faults }

func (f *faults) err() error {
	return f.Err(rpcstatus.Reason{Domain: domain, Name: reasonInvalid})
}
