// Package deadletter is what stands in the topic `dead-letters`: records that could
// not be processed.
package deadletter

import (
	"encoding/json"
	"fmt"

	"github.com/starling-fleet/starling/internal/eventlog"
)

// Letter is the value of a record of the topic `dead-letters`, as JSON: a
// record that could not be processed, where it came from and why.
type Letter struct {
	// Topic, Partition and Offset are the record's origin.
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	// AppendTimeMS is when the log took it, in milliseconds since the Unix epoch.
	AppendTimeMS int64 `json:"append_time_ms"`
	// Key and Value are the record as it stands in the log (base64 in JSON).
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
	// Error is why it could not be processed.
	Error string `json:"error"`
}

// Decode reads the value of a record of `dead-letters`.
func Decode(value []byte) (Letter, error) {
	var d Letter
	if err := json.Unmarshal(value, &d); err != nil {
		return Letter{}, fmt.Errorf("dead letter: %w", err)
	}
	return d, nil
}

// Record encodes d under the key topic/partition/offset, which is the same each
// time that the origin is processed: readers drop the repetitions that a
// restart makes.
func (d Letter) Record() (eventlog.Record, error) {
	value, err := json.Marshal(d)
	if err != nil {
		return eventlog.Record{}, fmt.Errorf("encode dead letter: %w", err)
	}
	return eventlog.Record{Key: fmt.Appendf(nil, "%s/%d/%d", d.Topic, d.Partition, d.Offset), Value: value}, nil
}
