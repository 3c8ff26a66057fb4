package query

import (
	"time"

	"github.com/starling-fleet/starling/internal/valid"
)

// Config bounds what callers can make the service do.
type Config struct {
	MaxRange       time.Duration `koanf:"max_range" help:"Longest range of time that one call may ask about."`
	MaxRows        int           `koanf:"max_rows" help:"Fixes, or statistics or visits, that one call reads at most; then it ends with a token with which the next goes on."`
	MaxScans       int           `koanf:"max_scans" help:"Calls that may read history at a time; further ones are refused with the time to wait."`
	MaxCallerScans int           `koanf:"max_caller_scans" help:"How many of these may be of one caller: of whom the token names or, in development mode, of one address."`
	CallTimeout    time.Duration `koanf:"call_timeout" help:"How long one call may take, its client's reading included."`
}

// DefaultConfig returns what Starling ships with.
func DefaultConfig() Config {
	return Config{MaxRange: 31 * 24 * time.Hour, MaxRows: 1_000_000, MaxScans: 8, MaxCallerScans: 4, CallTimeout: 2 * time.Minute}
}

// Validate returns all faults of c joined, each naming its field and rule, or nil.
func (c Config) Validate() error {
	var faults valid.Faults
	valid.Between(&faults, "max_range", c.MaxRange, time.Minute, 10*366*24*time.Hour)
	valid.Between(&faults, "max_rows", c.MaxRows, windowFixes, 1_000_000_000)
	valid.Between(&faults, "max_scans", c.MaxScans, 1, 10_000)
	valid.Between(&faults, "max_caller_scans", c.MaxCallerScans, 1, 10_000)
	valid.Between(&faults, "call_timeout", c.CallTimeout, time.Second, time.Hour)
	return faults.Err()
}
