package auth

import (
	"google.golang.org/grpc/codes"

	"github.com/starling-fleet/starling/internal/rpcstatus"
)

// errorDomain is the domain of google.rpc.ErrorInfo in this package's statuses.
const errorDomain = "auth.starling.v1"

// Reason is that of google.rpc.ErrorInfo, and of the metric of refusals.
type Reason string

// The reasons; docs/identity.md lists what to do about each.
const (
	Missing             Reason = "TOKEN_MISSING"
	Malformed           Reason = "TOKEN_MALFORMED"
	TooLarge            Reason = "TOKEN_TOO_LARGE"
	InURL               Reason = "TOKEN_IN_URL"
	WrongAlgorithm      Reason = "TOKEN_ALGORITHM"
	UnknownKey          Reason = "TOKEN_KEY_UNKNOWN"
	KeyRemoved          Reason = "TOKEN_KEY_REMOVED"
	WrongSignature      Reason = "TOKEN_SIGNATURE"
	Expired             Reason = "TOKEN_EXPIRED"
	NotYetValid         Reason = "TOKEN_NOT_YET_VALID"
	WrongIssuer         Reason = "TOKEN_ISSUER"
	WrongAudience       Reason = "TOKEN_AUDIENCE"
	WrongClaim          Reason = "TOKEN_CLAIM"
	KeysUnavailable     Reason = "KEYS_UNAVAILABLE"
	ScopeMissing        Reason = "SCOPE_MISSING"
	VehicleNotPermitted Reason = "VEHICLE_NOT_PERMITTED"
	RiderBound          Reason = "RIDER_BOUND"
	NotListed           Reason = "METHOD_NOT_LISTED"
	NotYourToken        Reason = "NOT_YOUR_TOKEN"
)

// Reasons are all of them.
func Reasons() []Reason {
	return []Reason{
		Missing, Malformed, TooLarge, InURL, WrongAlgorithm, UnknownKey, KeyRemoved, WrongSignature, Expired, NotYetValid,
		WrongIssuer, WrongAudience, WrongClaim, KeysUnavailable, ScopeMissing, VehicleNotPermitted, RiderBound, NotListed, NotYourToken,
	}
}

// Refusal is why a caller is not let in, or may not do what it asks. It never
// repeats a token.
type Refusal struct {
	Reason  Reason
	Message string
	// Facts name the claim and the rule.
	Facts map[string]string
}

func refuse(reason Reason, message string, facts ...string) *Refusal {
	r := &Refusal{Reason: reason, Message: message, Facts: map[string]string{}}
	for i := 0; i+1 < len(facts); i += 2 {
		r.Facts[facts[i]] = facts[i+1]
	}
	return r
}

// Code is UNAUTHENTICATED for who is not believed, PERMISSION_DENIED for who may
// not do this.
func (r *Refusal) Code() codes.Code {
	switch r.Reason {
	case ScopeMissing, VehicleNotPermitted, RiderBound, NotListed, NotYourToken:
		return codes.PermissionDenied
	case KeysUnavailable:
		return codes.Unavailable
	default:
		return codes.Unauthenticated
	}
}

// With returns the refusal with one more fact.
func (r *Refusal) With(key, value string) *Refusal {
	facts := map[string]string{key: value}
	for k, v := range r.Facts {
		facts[k] = v
	}
	return &Refusal{r.Reason, r.Message, facts}
}

// Err is the status that the caller gets.
func (r *Refusal) Err() error {
	return rpcstatus.Error(r.Code(), rpcstatus.Reason{Domain: errorDomain, Name: string(r.Reason), Metadata: r.Facts}, r.Message)
}
