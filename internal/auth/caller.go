package auth

import (
	"context"
	"strings"
	"time"

	"github.com/starling-fleet/starling/schemas/limits"
)

// Scopes is a set of what a token permits.
type Scopes uint16

// The scopes. docs/identity.md lists the calls of each.
const (
	// Report is reporting for the vehicle of the token.
	Report Scopes = 1 << iota
	// Dispatch is seeing the whole fleet.
	Dispatch
	// Rider is seeing a few vehicles that can be offered a ride, and the
	// vehicle of the token.
	Rider
	// VehicleRead is seeing the vehicle of the token.
	VehicleRead
	// Operate is the operator's endpoints.
	Operate
	// Metrics is reading metrics.
	Metrics
	// Service is a part of Starling itself that asks for others.
	Service
	// HistoryRead is reading history, with positions rounded.
	HistoryRead
	// HistoryPrecise is reading history as it is.
	HistoryPrecise
)

// lastScope is the one that is declared last.
const lastScope = HistoryPrecise

var scopeNames = map[string]Scopes{
	"report": Report, "dispatch": Dispatch, "rider": Rider, "vehicle:read": VehicleRead,
	"operate": Operate, "metrics": Metrics, "service": Service,
	"history:read": HistoryRead, "history:precise": HistoryPrecise,
}

// allScopes are those of a caller in development mode.
const allScopes = Report | Dispatch | Rider | VehicleRead | Operate | Metrics | HistoryRead | HistoryPrecise

// ParseScope returns the scope of a name; ok is false if there is none.
func ParseScope(name string) (s Scopes, ok bool) {
	s, ok = scopeNames[name]
	return s, ok
}

// String names the scopes, in the order in which they are declared.
func (s Scopes) String() string {
	var names []string
	for bit := Report; bit <= lastScope; bit <<= 1 {
		for name, scope := range scopeNames {
			if s&bit != 0 && scope == bit {
				names = append(names, name)
			}
		}
	}
	return strings.Join(names, " ")
}

// Caller is who makes a call, as its token proves. It does not change, and is
// shared by calls.
type Caller struct {
	// Issuer and Subject name the caller.
	Issuer, Subject string
	// Scopes are what it may do.
	Scopes Scopes
	// Vehicle is the vehicle that it may act for: an id, or a pattern with one *
	// for any characters; empty for none.
	Vehicle string
	// Expires is when its token does, the permitted difference of clocks
	// included; zero means never.
	Expires time.Time

	key *key // that signed its token; nil in development mode
	// principal is Principal's result, where it is known already.
	principal string
	// forwarded is true of a caller for whom a service of ours asks, which has
	// held it to the bounds of its scope already.
	forwarded bool
	dev       bool
}

// Has reports whether the caller has any of the scopes.
func (c *Caller) Has(anyOf Scopes) bool { return c.Scopes&anyOf != 0 }

// Owns reports whether the caller may act for a vehicle.
func (c *Caller) Owns(vehicle string) bool {
	before, behind, pattern := strings.Cut(c.Vehicle, "*")
	if !pattern {
		return vehicle == c.Vehicle && vehicle != ""
	}
	return len(vehicle) >= len(before)+len(behind) && strings.HasPrefix(vehicle, before) && strings.HasSuffix(vehicle, behind)
}

// Principal names the caller among all of them, for what is bound to it or
// shared out among callers.
func (c *Caller) Principal() string {
	if c.principal != "" {
		return c.principal
	}
	return c.Issuer + "\n" + c.Subject
}

// Restricted reports whether the caller is a rider and nothing more, who sees vehicles
// as a rider does. One for whom a service of ours asks was held to that by it.
func (c *Caller) Restricted() bool { return c.Has(Rider) && !c.Has(Dispatch) && !c.forwarded }

// ByService reports whether a service of ours calls, for itself or for others.
func (c *Caller) ByService() bool { return c.forwarded || c.Has(Service) }

// Ended returns the refusal of a caller whose token has expired or whose key was
// removed, or nil.
func (c *Caller) Ended(now time.Time) error {
	if r := c.ended(now); r != nil {
		return r.Err()
	}
	return nil
}

func (c *Caller) ended(now time.Time) *Refusal {
	if c.key != nil && c.key.isRemoved() {
		return refuse(KeyRemoved, "the key that the token was signed with is not among the server's any more", "claim", "kid")
	}
	if !c.Expires.IsZero() && !now.Before(c.Expires) {
		return refuse(Expired, "the token has expired", "claim", "exp")
	}
	return nil
}

// MayReport returns nil if the caller may report for a vehicle.
func (c *Caller) MayReport(vehicle string) *Refusal {
	if c.Owns(vehicle) {
		return nil
	}
	if c.Vehicle == "" {
		return refuse(VehicleNotPermitted, "the token names no vehicle", "claim", "vehicle", "rule", "names the vehicle that is reported for")
	}
	return refuse(VehicleNotPermitted, "the token is not of the vehicle that is reported for", "claim", "vehicle", "rule", "names the vehicle that is reported for")
}

// ValidVehicle reports whether a vehicle claim is an id or a pattern of one.
func ValidVehicle(claim string) bool {
	before, behind, _ := strings.Cut(claim, "*")
	whole := before + behind
	return whole == "" && claim == "*" || limits.ValidVehicleID(whole)
}

// ValidSubject reports whether a claim sub names somebody as it must.
func ValidSubject(claim string) bool {
	return claim != "" && len(claim) <= maxSubjectBytes && !strings.ContainsFunc(claim, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// SubjectRule is ValidSubject's rule in words.
const SubjectRule = "must have 1 to 256 bytes, none of them a control character"

// VehicleRule is ValidVehicle's rule in words.
const VehicleRule = "must be a vehicle id, or a pattern of one with a single *"

// Named reports whether a token names the caller: not where everybody is let in.
func (c *Caller) Named() bool { return c.Issuer != "" && !c.dev }

type callerKey struct{}

// WithCaller returns a context of a call by c.
func WithCaller(ctx context.Context, c *Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf returns who makes a call. Without a guard before the server that is
// somebody who may do nothing, never nil.
func CallerOf(ctx context.Context) *Caller {
	if c, ok := ctx.Value(callerKey{}).(*Caller); ok {
		return c
	}
	return nobody
}

// nobody may do nothing.
var nobody = &Caller{}
