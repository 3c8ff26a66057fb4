package history

import (
	"time"

	"github.com/starling-fleet/starling/internal/valid"
)

// Config sets the role. The zero value is not usable; start from DefaultConfig.
type Config struct {
	// LakeDir is where the Parquet files are; empty turns the role off.
	LakeDir string `koanf:"lake_dir" help:"Directory of the Parquet files of history, on a file system of its own if possible; empty turns history off. A log that has fed it once keeps tracks for it: docs/history.md says how to turn it off."`
	// LakeGroup is the name of the group of the lake's writers.
	LakeGroup string `koanf:"lake_group" help:"Name of the group of those that write the lake."`
	// BatchMaxRows is how many rows of a partition are written at once at most.
	BatchMaxRows int `koanf:"batch_max_rows" help:"Rows that a batch of one partition has at most (one record of tracks may go beyond it); what waits is held in memory, about 200 bytes each."`
	// BatchInterval is how long a partition's rows are gathered.
	BatchInterval time.Duration `koanf:"batch_interval" help:"How long rows of a partition are gathered at most before they are written: a shorter one is seen sooner and makes more files."`
	// MaxLag is how far a sink that fails may be behind.
	MaxLag time.Duration `koanf:"max_lag" help:"How old the tracks may become that a failing sink has not taken. Older ones are given up, so that they do not fill the local log's disk; the gap is on record."`
}

// DefaultConfig returns what Starling ships with.
func DefaultConfig() Config {
	return Config{LakeGroup: "starling-history-lake", BatchMaxRows: 50_000, BatchInterval: 5 * time.Minute, MaxLag: 24 * time.Hour}
}

// On returns whether there is anything to write to.
func (c Config) On() bool { return c.LakeDir != "" }

// Validate returns all faults of c joined, each naming its field and rule, or nil.
func (c Config) Validate() error {
	var faults valid.Faults
	faults.Need(c.LakeGroup != "", "lake_group", c.LakeGroup, "set")
	valid.Between(&faults, "batch_max_rows", c.BatchMaxRows, 1, 1_000_000)
	valid.Between(&faults, "batch_interval", c.BatchInterval, 10*time.Millisecond, time.Hour)
	valid.Between(&faults, "max_lag", c.MaxLag, time.Minute, 6*24*time.Hour)
	return faults.Err()
}
