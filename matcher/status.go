package matcher

import (
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/protoadapt"

	"github.com/starling-fleet/starling/internal/rpcstatus"
)

// errorDomain is the domain of google.rpc.ErrorInfo in this package's statuses.
const errorDomain = "fleet.starling.v1"

// Reasons of google.rpc.ErrorInfo.
const (
	reasonInvalidRequest  = "INVALID_REQUEST"
	reasonVehicleNotFound = "VEHICLE_NOT_FOUND"
	reasonRebuilding      = "REBUILDING"
	reasonTooManyWatchers = "TOO_MANY_WATCHERS"
	reasonAreaTooLarge    = "AREA_TOO_LARGE"
	reasonResumed         = "RESUMED"
	reasonStopped         = "STOPPED"
	reasonNoTravelTimes   = "NO_TRAVEL_TIMES"
	reasonRegionMismatch  = "REGION_MISMATCH"
	reasonStale           = "STALE"
)

// retryDelay is what clients are asked to wait while the fleet is rebuilt or
// watchers are too many.
const retryDelay = time.Second

// statusError builds a status of this package's domain.
func statusError(code codes.Code, reason, message string, details ...protoadapt.MessageV1) error {
	return rpcstatus.Error(code, rpcstatus.Reason{Domain: errorDomain, Name: reason}, message, details...)
}

func retryInfo() *errdetails.RetryInfo { return rpcstatus.RetryAfter(retryDelay) }

// hasStopped ends a watch when Run has ended.
func hasStopped() error {
	return statusError(codes.Unavailable, reasonStopped, "the matcher has stopped", retryInfo())
}

// notFound is the error for a vehicle that the fleet does not know.
func notFound(name string) error {
	return statusError(codes.NotFound, reasonVehicleNotFound, name+" is not known",
		&errdetails.ResourceInfo{ResourceType: "starling.v1.Vehicle", ResourceName: name, Description: "The vehicle has not reported, or was silent for so long that it was forgotten."})
}

// faults gathers what is wrong with a request.
type faults []*errdetails.BadRequest_FieldViolation

func (f *faults) add(field, rule string, args ...any) {
	*f = append(*f, &errdetails.BadRequest_FieldViolation{Field: field, Description: fmt.Sprintf(rule, args...)})
}

// err is the INVALID_ARGUMENT that names all faults, or nil.
func (f faults) err() error {
	if len(f) == 0 {
		return nil
	}
	return rpcstatus.Invalid(rpcstatus.Reason{Domain: errorDomain, Name: reasonInvalidRequest}, "", f).Err()
}
