package fanout

import (
	"math"
	"time"

	"github.com/starling-fleet/starling/matcher/query"
)

// Cost estimates the CPU time of a call, for rpcserver.Role, as a matcher does:
// answers are decoded, merged and encoded here, which costs about what it costs
// there to make them. How large the fleet is the fan-out does not know.
func Cost(req, answer any) time.Duration { return query.Cost(req, answer, math.MaxInt32) }
