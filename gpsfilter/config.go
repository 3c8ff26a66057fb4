package gpsfilter

import (
	"time"

	"github.com/starling-fleet/starling/internal/valid"
)

// Config sets the filter. One configuration serves vehicles of every kind and
// every reporting period from 0.1 s to 2 min; change it only with an
// evaluation at hand (see docs/gpsfilter.md). It is part of what the step
// computes: two filters with different configurations disagree.
type Config struct {
	DefaultAccuracyM float64       `koanf:"default_accuracy_m" help:"Standard deviation per axis in metres that is assumed of a device which reports no accuracy, until its own scale has been learned."`
	MinAccuracyM     float64       `koanf:"min_accuracy_m" help:"Smallest standard deviation per axis in metres that is believed of a fix."`
	MaxSpeedMPS      float64       `koanf:"max_speed_mps" help:"Speed in metres per second beyond which no vehicle drives."`
	PredictLimit     time.Duration `koanf:"predict_limit" help:"Longest time after the newest fix for which a position is predicted; beyond it the filter says that it does not know."`
	ForgetAfter      time.Duration `koanf:"forget_after" help:"Gap between two fixes after which the filter starts anew."`
}

// DefaultConfig returns the configuration that the evaluation was made with.
func DefaultConfig() Config {
	return Config{
		DefaultAccuracyM: 5,
		MinAccuracyM:     1,
		MaxSpeedMPS:      70,
		PredictLimit:     5 * time.Minute,
		ForgetAfter:      10 * time.Minute,
	}
}

// Validate returns all faults of c joined, each naming its field and rule, or
// nil.
func (c Config) Validate() error {
	var faults valid.Faults
	valid.Between(&faults, "default_accuracy_m", c.DefaultAccuracyM, 0.1, 1000)
	valid.Between(&faults, "min_accuracy_m", c.MinAccuracyM, 0.01, 100)
	valid.Between(&faults, "max_speed_mps", c.MaxSpeedMPS, 1, 1000)
	valid.Between(&faults, "predict_limit", c.PredictLimit, time.Second, 24*time.Hour)
	valid.Between(&faults, "forget_after", c.ForgetAfter, time.Second, 24*time.Hour)
	return faults.Err()
}
