package locallog

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/starling-fleet/starling/internal/valid"
	"github.com/starling-fleet/starling/schemas/topics"
)

// Config is what an operator sets for the embedded log.
type Config struct {
	Directory          string        `koanf:"directory" help:"Directory that holds the log; one process at a time uses it."`
	Partitions         int           `koanf:"-"`
	MaxOpenFiles       int           `koanf:"-"` // that both stores keep open together; 0 means 1,500
	Sync               bool          `koanf:"sync" help:"Whether an append is acknowledged only after an fsync; without it a crash of the process or the machine may lose acknowledged fixes, and raises the epoch."`
	GroupInterval      time.Duration `koanf:"group_interval" help:"Least time between the starts of two group commits; longer costs latency and saves CPU and fsyncs."`
	MaxBufferBytes     int64         `koanf:"max_buffer_bytes" help:"Bytes of appends that wait for their commit before further appends block."`
	MaxGroupBytes      int64         `koanf:"max_group_bytes" help:"Bytes that one group commit takes at most; a single larger record is a group of its own."`
	TailCacheBytes     int64         `koanf:"tail_cache_bytes" help:"Bytes of the newest records that are kept in memory for readers."`
	SegmentBytes       int64         `koanf:"segment_bytes" help:"Bytes of records after which a new segment begins; retention deletes whole segments."`
	SegmentAge         time.Duration `koanf:"segment_age" help:"Age at which a segment is followed by a new one."`
	BlockCacheBytes    int64         `koanf:"block_cache_bytes" help:"Bytes of the cache for blocks read from disk."`
	StateMemtableBytes int64         `koanf:"state_memtable_bytes" help:"Bytes of checkpoints that are gathered in memory before they are written out as a table."`
	RetentionInterval  time.Duration `koanf:"retention_interval" help:"Time between two looks for records older than their topic's retention."`
	Retention          []string      `koanf:"retention" help:"How long records of a topic are kept, as topic=duration, in place of the topic's own (locations and tracks 168h, dead-letters 672h); 0 keeps them for ever."`
	RetentionBytes     []string      `koanf:"retention_bytes" help:"About how many bytes of a topic are kept, as topic=bytes, beside the time; its oldest records are deleted by whole segments."`
	LowWaterFreeBytes  int64         `koanf:"low_water_free_bytes" help:"Least low-water mark: free bytes on the disk below which fixes are refused; consequences of what was taken are refused below half of it. 0 with low_water_percent 0 refuses nothing."`
	LowWaterPercent    float64       `koanf:"low_water_percent" help:"Share of the disk, in percent, that the low-water mark is where that is more than low_water_free_bytes, up to 16 GiB."`
	SpaceInterval      time.Duration `koanf:"space_interval" help:"Time between two looks at the free space of the disk."`
	HandoverTimeout    time.Duration `koanf:"handover_timeout" help:"Time that an owner may take to hand a partition over before it loses it."`
}

// DefaultConfig suits a laptop.
func DefaultConfig() Config {
	return Config{
		Directory:          "data/log",
		Partitions:         topics.DefaultPartitions,
		Sync:               true,
		GroupInterval:      10 * time.Millisecond,
		MaxBufferBytes:     64 << 20,
		MaxGroupBytes:      4 << 20,
		TailCacheBytes:     128 << 20,
		SegmentBytes:       8 << 20,
		SegmentAge:         time.Hour,
		BlockCacheBytes:    32 << 20,
		StateMemtableBytes: 64 << 20,
		RetentionInterval:  time.Minute,
		LowWaterFreeBytes:  256 << 20,
		LowWaterPercent:    5,
		SpaceInterval:      500 * time.Millisecond,
		HandoverTimeout:    30 * time.Second,
	}
}

// StoreMemoryBytes is about what the stores hold outside Go's heap: their caches,
// and the memtables that are written to or written out.
func (c *Config) StoreMemoryBytes() int64 {
	const memtables = 2 // of up to four of each store
	return c.BlockCacheBytes + stateCacheBytes + memtables*(c.recordMemtableBytes()+c.StateMemtableBytes)
}

func (c *Config) recordMemtableBytes() int64 {
	return c.SegmentBytes + c.SegmentBytes/4 + 2*c.MaxGroupBytes
}

// maxPartitions is what the key's layout allows.
const maxPartitions = 1 << 16

// Validate returns all faults at once.
func (c Config) Validate() error {
	var faults valid.Faults
	faults.Need(c.Directory != "", "directory", c.Directory, "set")
	valid.Between(&faults, "partitions", c.Partitions, 1, maxPartitions)
	valid.Between(&faults, "group_interval", c.GroupInterval, 0, time.Second)
	valid.AtLeast(&faults, "max_buffer_bytes", c.MaxBufferBytes, 64<<10)
	valid.AtLeast(&faults, "max_group_bytes", c.MaxGroupBytes, 64<<10)
	valid.AtLeast(&faults, "tail_cache_bytes", c.TailCacheBytes, 0)
	valid.Between(&faults, "segment_bytes", c.SegmentBytes, 64<<10, 1<<30)
	valid.AtLeast(&faults, "segment_age", c.SegmentAge, time.Second)
	valid.AtLeast(&faults, "block_cache_bytes", c.BlockCacheBytes, 1<<20)
	valid.Between(&faults, "state_memtable_bytes", c.StateMemtableBytes, 1<<20, 1<<30)
	valid.Positive(&faults, "retention_interval", c.RetentionInterval)
	_, err := c.limits()
	faults.Add(err)
	valid.Between(&faults, "low_water_percent", c.LowWaterPercent, 0, 50)
	valid.AtLeast(&faults, "low_water_free_bytes", c.LowWaterFreeBytes, 0)
	valid.Positive(&faults, "space_interval", c.SpaceInterval)
	valid.Positive(&faults, "handover_timeout", c.HandoverTimeout)
	return faults.Err()
}

// keep is what is set for a topic's retention.
type keep struct {
	time  *time.Duration // nil means the topic's own
	bytes int64          // zero means no such limit
}

// limits parses retention and retention_bytes; all faults are named at once.
func (c *Config) limits() (map[string]keep, error) {
	var faults []error
	kept := map[string]keep{}
	each := func(setting string, entries []string, take func(k *keep, value string) error) {
		for _, entry := range entries {
			name, value, _ := strings.Cut(entry, "=")
			topic, ok := topics.ByName(name)
			switch {
			case !ok:
				faults = append(faults, fmt.Errorf("%s is %q: must begin with a topic and =", setting, entry))
				continue
			case topic.Compacted:
				faults = append(faults, fmt.Errorf("%s is %q: must not be of %s, of which the newest record of every key is kept", setting, entry, name))
				continue
			}
			k := kept[name]
			if err := take(&k, value); err != nil {
				faults = append(faults, fmt.Errorf("%s is %q: %w", setting, entry, err))
			}
			kept[name] = k
		}
	}
	each("retention", c.Retention, func(k *keep, value string) error {
		d, err := time.ParseDuration(value)
		if err != nil || d < 0 || d > 0 && d < time.Minute {
			return errors.New("must be a duration of at least 1m, such as 72h, or 0")
		}
		k.time = &d
		return nil
	})
	each("retention_bytes", c.RetentionBytes, func(k *keep, value string) error {
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < c.SegmentBytes {
			return fmt.Errorf("must be a number of bytes of at least segment_bytes, which is %d", c.SegmentBytes)
		}
		k.bytes = n
		return nil
	})
	return kept, errors.Join(faults...)
}
