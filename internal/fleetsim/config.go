// Package fleetsim is a moving city fleet that reports as phones do: with
// jitter, GPS noise, tunnels, fixes uploaded by the minute, resends and
// disorder. Fleet is a pure generator, reproducible from its seed; Run sends
// what it generates.
package fleetsim

import (
	"time"

	"github.com/starling-fleet/starling/internal/valid"
)

// Config describes the fleet. Shares are probabilities from 0 to 1.
type Config struct {
	Vehicles      int           `koanf:"vehicles" help:"How many vehicles."`
	Seed          int64         `koanf:"seed" help:"Number from which everything random is drawn; the same seed gives the same fleet."`
	VehiclePrefix string        `koanf:"vehicle_prefix" help:"What vehicle ids begin with."`
	CentreLatDeg  float64       `koanf:"centre_lat_deg" help:"Latitude of the city's centre in degrees, -80 to 80."`
	CentreLonDeg  float64       `koanf:"centre_lon_deg" help:"Longitude of the city's centre in degrees."`
	RadiusM       float64       `koanf:"radius_m" help:"Half the width of the city in metres."`
	Period        time.Duration `koanf:"period" help:"Time between two fixes of a vehicle."`
	JitterShare   float64       `koanf:"jitter_share" help:"How far a period may be shorter or longer, as a share of it."`
	NoiseM        float64       `koanf:"noise_m" help:"Typical error of a GPS position in metres."`
	BatchShare    float64       `koanf:"batch_share" help:"Share of vehicles that upload a minute's fixes at once."`
	BatchPeriod   time.Duration `koanf:"batch_period" help:"How often a vehicle that uploads many fixes at once does so."`
	ResendShare   float64       `koanf:"resend_share" help:"Share of reports that are sent a second time."`
	DisorderShare float64       `koanf:"disorder_share" help:"Share of reports that are overtaken by later ones."`
	JumpShare     float64       `koanf:"jump_share" help:"Share of fixes that are far off for no reason."`
	BadFirstShare float64       `koanf:"bad_first_share" help:"Share of first fixes, after a start or a tunnel, that are far off."`
	Tunnels       int           `koanf:"tunnels" help:"How many stretches of road have no reception."`
	OfflineShare  float64       `koanf:"offline_share" help:"Share of idle drivers that go off for some minutes instead of waiting at a rank."`
}

// DefaultConfig is a fleet of 200 in Vienna.
func DefaultConfig() Config {
	return Config{
		Vehicles: 200, Seed: 1, VehiclePrefix: "sim-",
		CentreLatDeg: 48.2085, CentreLonDeg: 16.3730, RadiusM: 4000,
		Period: 2 * time.Second, JitterShare: 0.2,
		NoiseM: 4, BatchShare: 0.1, BatchPeriod: time.Minute,
		ResendShare: 0.005, DisorderShare: 0.005, JumpShare: 0.001, BadFirstShare: 0.2,
		Tunnels: 6, OfflineShare: 0.05,
	}
}

// Validate names every field that breaks its rule.
func (c Config) Validate() error {
	var faults valid.Faults
	valid.Between(&faults, "vehicles", c.Vehicles, 1, 1_000_000)
	faults.Need(len(c.VehiclePrefix) >= 1 && len(c.VehiclePrefix) <= 50, "vehicle_prefix", c.VehiclePrefix, "1 to 50 characters")
	valid.Between(&faults, "centre_lat_deg", c.CentreLatDeg, -80, 80)
	valid.Between(&faults, "centre_lon_deg", c.CentreLonDeg, -180, 180)
	valid.Between(&faults, "radius_m", c.RadiusM, 500, 100_000)
	valid.Between(&faults, "period", c.Period, 100*time.Millisecond, time.Hour)
	faults.Need(c.BatchPeriod >= c.Period && c.BatchPeriod <= 500*c.Period, "batch_period", c.BatchPeriod, "between period and 500 periods")
	valid.Between(&faults, "noise_m", c.NoiseM, 0, 1000)
	valid.Between(&faults, "tunnels", c.Tunnels, 0, 1000)
	for _, s := range []struct {
		name  string
		value float64
	}{
		{"jitter_share", c.JitterShare}, {"batch_share", c.BatchShare}, {"resend_share", c.ResendShare}, {"disorder_share", c.DisorderShare},
		{"jump_share", c.JumpShare}, {"bad_first_share", c.BadFirstShare}, {"offline_share", c.OfflineShare},
	} {
		valid.Between(&faults, s.name, s.value, 0, 1)
	}
	faults.Need(c.JitterShare <= 0.9, "jitter_share", c.JitterShare, "at most 0.9")
	return faults.Err()
}
