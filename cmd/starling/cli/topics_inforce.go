package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/tracker/step"
)

// inForce returns what each partition is stepped by as of its last checkpoint;
// partitions without one are left out.
func inForce(ctx context.Context, log *openLog) (map[int32]step.InForce, error) {
	if log.cfg.OnKafka() {
		return inForceOnKafka(ctx, log)
	}
	return inForceOnLocal(ctx, log)
}

// inForceOnLocal loads the claims of the log's owners, which are not running:
// the log belongs to this process.
func inForceOnLocal(ctx context.Context, log *openLog) (map[int32]step.InForce, error) {
	var mu sync.Mutex
	found := map[int32]step.InForce{}
	loaded := 0
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	spec := eventlog.OwnSpec{Group: log.cfg.Tracker.Group, Source: topics.Locations, State: topics.TrackerState}
	err := log.Own(ctx, spec, func(ctx context.Context, claim eventlog.Claim) error {
		_, err := claim.Load(ctx, func(key, value []byte) error {
			state, ok, err := step.ReadInForce(key, value)
			if ok {
				mu.Lock()
				found[claim.Partition()] = state
				mu.Unlock()
			}
			return err
		})
		if err != nil {
			return err
		}
		mu.Lock()
		loaded++
		if loaded == int(log.Partitions()) {
			enough()
		}
		mu.Unlock()
		<-claim.Revoked()
		return nil
	})
	if err == nil && loaded < int(log.Partitions()) {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", topics.TrackerState, err)
	}
	return found, nil
}

// inForceOnKafka reads the end of the state topic, beside the trackers that
// write it: every checkpoint reports what its partition is stepped by.
func inForceOnKafka(ctx context.Context, log *openLog) (map[int32]step.InForce, error) {
	const shortest, longer = 1 << 10, 16
	bounds, err := log.Bounds(ctx, topics.TrackerState)
	if err != nil {
		return nil, fmt.Errorf("bounds of %s: %w", topics.TrackerState, err)
	}
	// A transaction's marker stands behind its records and is never read, so
	// the end shows only in that nothing more comes.
	quick := *log
	quick.patience = min(quick.patience, 3*time.Second)
	found := map[int32]step.InForce{}
	for number, at := range bounds {
		partition := int32(number)
		for stretch := int64(shortest); ; stretch *= longer {
			from := max(at.First, at.End-stretch)
			err := quick.read(ctx, topics.TrackerState, partition, from, at.End-1, func(rec eventlog.Stored) error {
				state, ok, err := step.ReadInForce(rec.Key, rec.Value)
				if ok {
					found[partition] = state
				}
				return err
			})
			if err != nil && !errors.Is(err, errIdle) {
				return nil, err
			}
			if _, ok := found[partition]; ok || from == at.First {
				break
			}
		}
	}
	return found, nil
}

// changes lists how settings would change, sorted by name.
func changes(from, to []byte) ([]string, error) {
	before, err := flatten(from)
	if err != nil {
		return nil, err
	}
	after, err := flatten(to)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for name := range before {
		names[name] = true
	}
	for name := range after {
		names[name] = true
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if before[name] != after[name] {
			out = append(out, fmt.Sprintf("%s: %s -> %s", name, before[name], after[name]))
		}
	}
	return out, nil
}

// flatten returns the values of a JSON object by their dotted names.
func flatten(encoded []byte) (map[string]string, error) {
	d := json.NewDecoder(bytes.NewReader(encoded))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		return nil, fmt.Errorf("step settings: %w", err)
	}
	out := map[string]string{}
	var walk func(prefix string, object map[string]any)
	walk = func(prefix string, object map[string]any) {
		for name, value := range object {
			if section, ok := value.(map[string]any); ok {
				walk(prefix+name+".", section)
				continue
			}
			out[prefix+name] = fmt.Sprint(value)
		}
	}
	walk("", object)
	return out, nil
}
