package kafkalog

import (
	"fmt"
	"strconv"

	"github.com/starling-fleet/starling/schemas/topics"
)

// metaTopic is a compacted topic of one partition that holds the log's epoch.
const metaTopic = "starling-meta"

const (
	// batchOverheadBytes is what a batch and its one record add to the record's
	// key and value at most, with capacity to spare.
	batchOverheadBytes = 32 << 10
	// stateSegmentBytes keeps the segments of compacted topics small: a segment
	// is compacted only when it is closed, and a new owner reads all that is
	// not compacted yet.
	stateSegmentBytes = 16 << 20
)

// declared is a topic as it should be on the cluster.
type declared struct {
	name       string // with the prefix
	partitions int
	configs    map[string]string
	// vital are the configs without which acknowledged records could be lost
	// or misread; a difference is refused and not only reported.
	vital []string
}

// batchMaxBytes bounds a batch of a topic, so that its largest record fits.
func batchMaxBytes(t topics.Topic) int { return t.MaxRecordBytes + batchOverheadBytes }

func declare(cfg *Config, all []topics.Topic, minISR int) []declared {
	meta := topics.Topic{Name: metaTopic, Compacted: true, MaxRecordBytes: 1 << 20}
	// The topic of the epoch comes first: a crash in between then leaves
	// nothing that looks like a log whose epoch was lost.
	out := []declared{declareTopic(cfg, meta, 1, minISR)}
	for _, t := range all {
		out = append(out, declareTopic(cfg, t, cfg.Partitions, minISR))
	}
	return out
}

func declareTopic(cfg *Config, t topics.Topic, partitions, minISR int) declared {
	d := declared{
		name:       cfg.TopicPrefix + t.Name,
		partitions: partitions,
		configs: map[string]string{
			"message.timestamp.type":         "LogAppendTime",
			"max.message.bytes":              strconv.Itoa(batchMaxBytes(t)),
			"min.insync.replicas":            strconv.Itoa(minISR),
			"unclean.leader.election.enable": "false",
			"compression.type":               "producer",
		},
		vital: []string{"message.timestamp.type", "max.message.bytes", "min.insync.replicas", "cleanup.policy", "unclean.leader.election.enable"},
	}
	if t.Compacted {
		d.configs["cleanup.policy"] = "compact"
		d.configs["segment.bytes"] = strconv.Itoa(stateSegmentBytes)
		d.configs["min.cleanable.dirty.ratio"] = "0.1"
		d.configs["max.compaction.lag.ms"] = "600000"
	} else {
		d.configs["cleanup.policy"] = "delete"
		d.configs["retention.ms"] = "-1"
		if t.Retention > 0 {
			d.configs["retention.ms"] = strconv.FormatInt(t.Retention.Milliseconds(), 10)
		}
	}
	return d
}

// differs compares one config as it is with what is declared. A larger bound
// on sizes, or more replicas in sync, is no difference.
func differs(key, want, have string) bool {
	if want == have {
		return false
	}
	switch key {
	case "max.message.bytes", "min.insync.replicas":
		w, errW := strconv.Atoi(want)
		h, errH := strconv.Atoi(have)
		return errW != nil || errH != nil || h < w
	}
	return true
}

// faultOf reports what is wrong with a topic that exists, or returns nil. It
// looks at nothing that an operator may set as they like.
func (d *declared) faultOf(partitions int, have map[string]string) error {
	if partitions != d.partitions {
		return fmt.Errorf("topic %s has %d partitions, but %d are configured: the number can't be changed once the topic exists (docs/kafka.md says how to migrate)", d.name, partitions, d.partitions)
	}
	for _, key := range d.vital {
		if differs(key, d.configs[key], have[key]) {
			return fmt.Errorf("topic %s has %s=%s: must be %s", d.name, key, have[key], d.configs[key])
		}
	}
	return nil
}
