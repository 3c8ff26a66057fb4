package client

import (
	"time"

	"github.com/starling-fleet/starling/internal/valid"
	"github.com/starling-fleet/starling/schemas/limits"
)

// MaxUnacknowledged is how many reports of one vehicle and session may be
// unacknowledged at a time. The protocol fixes it: the tracker recognises a
// resend among as many sequence numbers.
const MaxUnacknowledged = limits.MaxUnacknowledgedReports

// MaxFixesPerReport is how many fixes one report may carry.
const MaxFixesPerReport = limits.MaxFixesPerReport

// MaxReportBytes is the largest encoded size of a report's fixes and attributes
// that every server accepts. A thousand fixes have about 50 KB.
const MaxReportBytes = limits.MaxReportBytes

// Config bounds a Reporter.
type Config struct {
	MaxPendingReports int           `koanf:"max_pending_reports" help:"Unacknowledged reports of all vehicles beyond which Send blocks."`
	MaxPendingBytes   int64         `koanf:"max_pending_bytes" help:"Encoded bytes of unacknowledged reports beyond which Send blocks."`
	MaxVehicles       int           `koanf:"max_vehicles" help:"Vehicles whose session is remembered; beyond it, one with nothing pending starts a new session at its next report."`
	AckTimeout        time.Duration `koanf:"ack_timeout" help:"Longest wait for an acknowledgement before the stream counts as broken."`
	BackoffMin        time.Duration `koanf:"backoff_min" help:"Wait before the first attempt after a broken stream."`
	BackoffMax        time.Duration `koanf:"backoff_max" help:"Longest wait between attempts, unless the server asks for more."`
}

// DefaultConfig suits a driver app and a gateway of some thousand vehicles.
func DefaultConfig() Config {
	return Config{
		MaxPendingReports: 8192,
		MaxPendingBytes:   16 << 20,
		MaxVehicles:       100_000,
		AckTimeout:        30 * time.Second,
		BackoffMin:        200 * time.Millisecond,
		BackoffMax:        30 * time.Second,
	}
}

// Validate names every field that breaks its rule.
func (c Config) Validate() error {
	var faults valid.Faults
	valid.Positive(&faults, "max_pending_reports", c.MaxPendingReports)
	valid.Positive(&faults, "max_pending_bytes", c.MaxPendingBytes)
	valid.Positive(&faults, "max_vehicles", c.MaxVehicles)
	valid.Positive(&faults, "ack_timeout", c.AckTimeout)
	valid.Positive(&faults, "backoff_min", c.BackoffMin)
	faults.Need(c.BackoffMax >= c.BackoffMin, "backoff_max", c.BackoffMax, "at least backoff_min")
	return faults.Err()
}
