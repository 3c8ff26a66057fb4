package query

import (
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/protoadapt"

	"github.com/starling-fleet/starling/internal/request"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/matcher/follow"
)

// errorDomain is the domain of google.rpc.ErrorInfo in the service's statuses.
const errorDomain = "fleet.starling.v1"

// Reasons of google.rpc.ErrorInfo, of all calls of the service.
const (
	ReasonTooManyWatchers = "TOO_MANY_WATCHERS"
	ReasonAreaTooLarge    = "AREA_TOO_LARGE"
	ReasonResumed         = "RESUMED"
	ReasonRegionMismatch  = "REGION_MISMATCH"

	reasonInvalidRequest  = "INVALID_REQUEST"
	reasonVehicleNotFound = "VEHICLE_NOT_FOUND"
	reasonVehicleRefused  = "VEHICLE_REFUSED"
	reasonRebuilding      = "REBUILDING"
	reasonStopped         = "STOPPED"
	reasonNoTravelTimes   = "NO_TRAVEL_TIMES"
	reasonStale           = "STALE"
)

// retryDelay is what clients are asked to wait while the fleet is rebuilt or
// watchers are too many.
const retryDelay = time.Second

// Error returns a status of the service's domain as an error.
func Error(code codes.Code, reason, message string, details ...protoadapt.MessageV1) error {
	return rpcstatus.Error(code, rpcstatus.Reason{Domain: errorDomain, Name: reason}, message, details...)
}

// RetryInfo asks the client to come back after retryDelay.
func RetryInfo() *errdetails.RetryInfo { return rpcstatus.RetryAfter(retryDelay) }

// HasStopped is the error of calls that meet a matcher whose Run has ended.
func HasStopped() error {
	return Error(codes.Unavailable, reasonStopped, "the matcher has stopped", RetryInfo())
}

// Serving returns nil when the fleet can be asked, else why not.
func Serving(f *follow.Follower) error {
	if f.Ready() {
		return nil
	}
	if f.Ended() {
		return HasStopped()
	}
	return Error(codes.Unavailable, reasonRebuilding, "the fleet is being rebuilt from the log", RetryInfo())
}

// notFound is the error for a vehicle that the fleet does not know.
func notFound(name string) error {
	return Error(codes.NotFound, reasonVehicleNotFound, name+" is not known",
		&errdetails.ResourceInfo{ResourceType: "starling.v1.Vehicle", ResourceName: name, Description: "The vehicle has not reported, or was silent for so long that it was forgotten."})
}

// refusedByTracker is the error for a vehicle that is not known because its report
// was refused after it had been acknowledged.
func refusedByTracker(name string, r follow.Refusal) error {
	return Error(codes.NotFound, reasonVehicleRefused, name+" is not known",
		&errdetails.ResourceInfo{ResourceType: "starling.v1.Vehicle", ResourceName: name, Description: fmt.Sprintf(
			"Its report was refused at %s: %s. The vehicle's partition knows as many vehicles as it may (tracker.max_vehicles).",
			time.UnixMilli(r.StreamTimeMS).UTC().Format(time.RFC3339Nano), r.Reason)})
}

// Faults gathers what is wrong with a request. Its methods read parts of one into
// the form that the index takes, and add a violation for each rule that is broken.
type Faults struct{ request.Faults }

// Err is the INVALID_ARGUMENT that names all Faults, or nil.
func (f Faults) Err() error {
	return f.Violations.Err(rpcstatus.Reason{Domain: errorDomain, Name: reasonInvalidRequest})
}
