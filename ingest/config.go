package ingest

import (
	"time"

	"github.com/starling-fleet/starling/internal/valid"
	"github.com/starling-fleet/starling/schemas/limits"
)

// Config configures the ingest server.
type Config struct {
	Validation ValidationConfig `koanf:"validation" help:"-"`
	Limits     LimitsConfig     `koanf:"limits" help:"-"`
}

// ValidationConfig holds the bounds of the validation rules.
type ValidationConfig struct {
	MaxFixes       int           `koanf:"max_fixes" help:"Fixes in one report at most, up to 1000."`
	MaxAhead       time.Duration `koanf:"max_ahead" help:"How far a fix's device time may be ahead of the server. The same bound as tracker.max_ahead."`
	MaxAge         time.Duration `koanf:"max_age" help:"How far a fix's device time may be behind the server."`
	ClockTolerance time.Duration `koanf:"clock_tolerance" help:"How far the server's clock may be from the append times that the log stamps before it is in doubt and refusals for a device time are kept back."`
	MaxSpeedMPS    float64       `koanf:"max_speed_mps" help:"Highest speed over ground, in metres per second."`
	MinAltitudeM   float64       `koanf:"min_altitude_m" help:"Lowest altitude, in metres above the WGS84 ellipsoid."`
	MaxAltitudeM   float64       `koanf:"max_altitude_m" help:"Highest altitude, in metres above the WGS84 ellipsoid."`
	RefuseMocked   bool          `koanf:"refuse_mocked" help:"Refuse fixes that the operating system marks as supplied by another app."`
}

// LimitsConfig bounds what clients can make the server hold and do.
type LimitsConfig struct {
	MaxMessageBytes      int           `koanf:"max_message_bytes" help:"Largest encoded report, in bytes. A larger one ends its stream."`
	MaxStreams           int           `koanf:"max_streams" help:"Streams that may be open at a time."`
	MaxConnStreams       int           `koanf:"max_conn_streams" help:"Calls of one connection that may be open at a time; further ones wait in the client."`
	StreamReports        int           `koanf:"stream_reports" help:"Reports of one stream that may be in flight, read but not acknowledged, before the server stops reading it."`
	StreamBytes          int64         `koanf:"stream_bytes" help:"Bytes of one stream that may be in flight before the server stops reading it."`
	ServerBytes          int64         `koanf:"server_bytes" help:"Bytes of all streams and calls that may be in flight before the server stops reading."`
	AppendWait           time.Duration `koanf:"append_wait" help:"How long one report may wait for capacity, in the server or in the log, before its stream or call ends with RESOURCE_EXHAUSTED; a unary call also waits no longer for the log to confirm its report."`
	SendWait             time.Duration `koanf:"send_wait" help:"How long a client may leave its acknowledgements unread while one is being sent, before its stream ends."`
	FlushWait            time.Duration `koanf:"flush_wait" help:"How long the end of a stream waits for the log to settle what is in flight, so that it can still be acknowledged."`
	StreamIdleTimeout    time.Duration `koanf:"stream_idle_timeout" help:"Silence after which a stream with nothing in flight ends with DEADLINE_EXCEEDED."`
	StreamReportsPerSec  float64       `koanf:"stream_reports_per_s" help:"Reports that one stream may send per second on average, with a burst of one second; the server reads no faster. 0 means no limit."`
	StreamFixesPerSec    float64       `koanf:"stream_fixes_per_s" help:"Fixes that one stream may send per second on average, with a burst of one second; the server reads no faster. 0 means no limit."`
	VehicleReportsPerSec float64       `koanf:"vehicle_reports_per_s" help:"Reports of one vehicle per second on average, over all streams and calls; a further one ends its stream or call with RESOURCE_EXHAUSTED. 0 means no limit."`
	VehicleFixesPerSec   float64       `koanf:"vehicle_fixes_per_s" help:"Fixes of one vehicle per second on average, likewise. What a phone has gathered while it was offline comes at once: see rate_burst."`
	CallerReportsPerSec  float64       `koanf:"caller_reports_per_s" help:"Reports of one caller, as its token names it, per second on average. 0 means no limit. In development mode callers have no names."`
	CallerFixesPerSec    float64       `koanf:"caller_fixes_per_s" help:"Fixes of one caller per second on average, likewise."`
	AddressReportsPerSec float64       `koanf:"address_reports_per_s" help:"Reports from one network address per second on average. 0 means no limit: mobile networks put many thousand phones behind one address."`
	AddressFixesPerSec   float64       `koanf:"address_fixes_per_s" help:"Fixes from one network address per second on average, likewise."`
	RateBurst            time.Duration `koanf:"rate_burst" help:"How much may come at once of what the rates of vehicles, callers and addresses allow: as much as in this time."`
	RetryDelay           time.Duration `koanf:"retry_delay" help:"Least delay that a client turned away is asked to wait; up to twice as much is asked for, at random, so that clients do not come back together."`
	PingInterval         time.Duration `koanf:"ping_interval" help:"Silence of a connection after which the server asks whether its client is still there."`
}

// DefaultConfig suits phones and gateways on one server.
func DefaultConfig() Config {
	return Config{
		Validation: ValidationConfig{
			MaxFixes:       1000,
			MaxAhead:       2 * time.Minute,
			MaxAge:         30 * 24 * time.Hour,
			ClockTolerance: 30 * time.Second,
			MaxSpeedMPS:    150,
			MinAltitudeM:   -1000,
			MaxAltitudeM:   20_000,
		},
		Limits: LimitsConfig{
			MaxMessageBytes:   128 << 10,
			MaxStreams:        20_000,
			MaxConnStreams:    1000,
			StreamReports:     1024,
			StreamBytes:       512 << 10,
			ServerBytes:       128 << 20,
			AppendWait:        10 * time.Second,
			SendWait:          30 * time.Second,
			FlushWait:         5 * time.Second,
			StreamIdleTimeout: 15 * time.Minute,
			// Far beyond phones, and beyond gateways with ten thousand vehicles.
			VehicleReportsPerSec: 200,
			VehicleFixesPerSec:   500,
			CallerReportsPerSec:  20_000,
			CallerFixesPerSec:    50_000,
			RateBurst:            time.Minute,
			RetryDelay:           time.Second,
			PingInterval:         2 * time.Minute,
		},
	}
}

// minRate and maxRate bound rates, in units a second, to what can be reckoned with.
const minRate, maxRate = 0.001, 1e9

// maxFixesEver is the largest max_fixes: the API's own bound.
const maxFixesEver = limits.MaxFixesPerReport

// MaxRequestBytes is the largest message that the server reads.
func (c Config) MaxRequestBytes() int { return 2 * c.Limits.MaxMessageBytes }

// Validate returns all faults, each naming its field and rule.
func (c Config) Validate() error {
	var faults valid.Faults
	v, l := c.Validation, c.Limits
	valid.Between(&faults, "validation.max_fixes", v.MaxFixes, 1, maxFixesEver)
	valid.Positive(&faults, "validation.max_ahead", v.MaxAhead)
	valid.AtLeast(&faults, "validation.clock_tolerance", v.ClockTolerance, time.Second)
	valid.Positive(&faults, "validation.max_age", v.MaxAge)
	valid.Positive(&faults, "validation.max_speed_mps", v.MaxSpeedMPS)
	faults.Need(v.MinAltitudeM < v.MaxAltitudeM, "validation.min_altitude_m", v.MinAltitudeM, "below validation.max_altitude_m")

	valid.Between(&faults, "limits.max_message_bytes", l.MaxMessageBytes, 1<<10, 512<<10)
	valid.AtLeast(&faults, "limits.max_streams", l.MaxStreams, 1)
	valid.AtLeast(&faults, "limits.max_conn_streams", l.MaxConnStreams, 1)
	valid.AtLeast(&faults, "limits.stream_reports", l.StreamReports, 1)
	valid.AtLeast(&faults, "limits.stream_bytes", l.StreamBytes, 1)
	faults.Need(l.ServerBytes >= 1<<20, "limits.server_bytes", l.ServerBytes, "at least 1048576, which is more than one report can take")
	valid.AtLeast(&faults, "limits.stream_reports_per_s", l.StreamReportsPerSec, 0)
	valid.AtLeast(&faults, "limits.stream_fixes_per_s", l.StreamFixesPerSec, 0)
	for field, rate := range map[string]float64{
		"vehicle_reports_per_s": l.VehicleReportsPerSec, "vehicle_fixes_per_s": l.VehicleFixesPerSec,
		"caller_reports_per_s": l.CallerReportsPerSec, "caller_fixes_per_s": l.CallerFixesPerSec,
		"address_reports_per_s": l.AddressReportsPerSec, "address_fixes_per_s": l.AddressFixesPerSec,
	} {
		faults.Need(rate == 0 || rate >= minRate && rate <= maxRate, "limits."+field, rate, "0 or between 0.001 and 1e9")
	}
	valid.Between(&faults, "limits.rate_burst", l.RateBurst, time.Second, time.Hour)
	for _, d := range []struct {
		field string
		value time.Duration
	}{
		{"append_wait", l.AppendWait}, {"send_wait", l.SendWait}, {"flush_wait", l.FlushWait},
		{"stream_idle_timeout", l.StreamIdleTimeout}, {"retry_delay", l.RetryDelay},
	} {
		valid.AtLeast(&faults, "limits."+d.field, d.value, time.Millisecond)
	}
	valid.AtLeast(&faults, "limits.ping_interval", l.PingInterval, time.Second)
	return faults.Err()
}
