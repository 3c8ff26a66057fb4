package history

import (
	"fmt"
	"time"

	"github.com/starling-fleet/starling/history/clickhouse"
	"github.com/starling-fleet/starling/history/lake"
	"github.com/starling-fleet/starling/history/query"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/valid"
)

// Config sets the role. The zero value is not usable; start from DefaultConfig.
type Config struct {
	// LakeDir is where the Parquet files are, a directory or s3://bucket/prefix; empty
	// turns the lake off.
	LakeDir string `koanf:"lake_dir" help:"Where the Parquet files of history are: a directory, on a file system of its own if possible, or s3://bucket/prefix (AWS_ENDPOINT_URL, AWS_REGION and access keys as the AWS tools find them); empty turns the lake off. A local log that has fed it keeps tracks for it until starling history release."`
	// LakeGroup is the name of the group of the lake's writers.
	LakeGroup string `koanf:"lake_group" help:"Name of the group of those that write the lake."`
	// BatchMaxRows is how many rows of a partition are written at once at most.
	BatchMaxRows int `koanf:"batch_max_rows" help:"Rows that a batch of one partition has at most (one record of tracks may go beyond it); what waits is held in memory, about 200 bytes each."`
	// BatchInterval is how long a partition's rows are gathered.
	BatchInterval time.Duration `koanf:"batch_interval" help:"How long rows of a partition are gathered at most before they are written: a shorter one is seen sooner and makes more files."`
	// LakeJoinAfter is how old an hour is whose small files are joined; 0 is never.
	LakeJoinAfter time.Duration `koanf:"lake_join_after" help:"How long after an hour of device time has ended its small files are joined into larger ones; 0 leaves them as they are."`
	// ClickHouse is the other sink; without addresses there is none.
	ClickHouse clickhouse.Config `koanf:"clickhouse" help:"-"`
	// ClickHouseGroup is the name of the group of ClickHouse's writers.
	ClickHouseGroup string `koanf:"clickhouse_group" help:"Name of the group of those that write to ClickHouse."`
	// ClickHouseBatchMaxRows and ClickHouseBatchInterval are for ClickHouse what
	// BatchMaxRows and BatchInterval are for the lake.
	ClickHouseBatchMaxRows  int           `koanf:"clickhouse_batch_max_rows" help:"Rows that a batch of one partition for ClickHouse has at most; what waits is held in memory, about 200 bytes each."`
	ClickHouseBatchInterval time.Duration `koanf:"clickhouse_batch_interval" help:"How long rows of a partition are gathered at most before they are inserted into ClickHouse. All partitions together should make no more than a few inserts a second: each is a part that ClickHouse must merge."`
	// MaxLag is how far a sink that fails may be behind.
	MaxLag time.Duration `koanf:"max_lag" help:"How old the tracks may become that a failing sink has not taken. Older ones are given up, so that they do not fill the local log's disk; the gap is on record."`
	// Query bounds what callers may ask of history.
	Query query.Config `koanf:"query" help:"-"`
}

// DefaultConfig returns what Starling ships with.
func DefaultConfig() Config {
	return Config{
		LakeGroup: "starling-history-lake", BatchMaxRows: 50_000, BatchInterval: 5 * time.Minute, LakeJoinAfter: time.Hour, MaxLag: 24 * time.Hour,
		ClickHouse: clickhouse.DefaultConfig(), ClickHouseGroup: "starling-history-clickhouse", ClickHouseBatchMaxRows: 100_000, ClickHouseBatchInterval: 30 * time.Second,
		Query: query.DefaultConfig(),
	}
}

// On returns whether there is anything to write to.
func (c Config) On() bool { return c.LakeDir != "" || c.ClickHouse.On() }

// Validate returns all faults of c joined, each naming its field and rule, or nil.
func (c Config) Validate() error {
	var faults valid.Faults
	faults.Need(c.LakeGroup != "", "lake_group", c.LakeGroup, "set")
	valid.Between(&faults, "batch_max_rows", c.BatchMaxRows, 1, 1_000_000)
	valid.Between(&faults, "batch_interval", c.BatchInterval, 10*time.Millisecond, time.Hour)
	if c.LakeDir != "" {
		err := lake.Check(c.LakeDir)
		faults.Need(err == nil, "lake_dir", c.LakeDir, "a directory or s3://bucket/prefix: "+fmt.Sprint(err))
	}
	faults.Need(c.LakeJoinAfter == 0 || c.LakeJoinAfter >= time.Minute && c.LakeJoinAfter <= 6*24*time.Hour, "lake_join_after", c.LakeJoinAfter, "0 or between 1m and 144h")
	faults.Need(c.ClickHouseGroup != "" && c.ClickHouseGroup != c.LakeGroup, "clickhouse_group", c.ClickHouseGroup, "set, and another than lake_group")
	valid.Between(&faults, "clickhouse_batch_max_rows", c.ClickHouseBatchMaxRows, 1, 1_000_000)
	valid.Between(&faults, "clickhouse_batch_interval", c.ClickHouseBatchInterval, 10*time.Millisecond, time.Hour)
	faults.In("clickhouse", c.ClickHouse.Validate())
	valid.Between(&faults, "max_lag", c.MaxLag, time.Minute, 6*24*time.Hour)
	faults.In("query", c.Query.Validate())
	return faults.Err()
}

// OpenStore opens what history is answered from: ClickHouse where it is on, else the
// lake, which must be there. The caller closes it.
func (c Config) OpenStore() (store.Store, error) {
	if c.ClickHouse.On() {
		return clickhouse.NewStore(c.ClickHouse)
	}
	return lake.NewReader(c.LakeDir)
}
