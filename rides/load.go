package rides

import (
	"bytes"
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// headerKey is the key of the partition's own state; no ride has that name.
const headerKey = "!partition"

// queuePrefix begins the keys of the queues of zones.
const queuePrefix = "!zone/"

// kept is what `rides-state` holds of a partition.
type kept struct {
	state life.State
	// next is the offset in `rides` behind the last record that state has in it.
	next int64
	// requestsMS and ridesMS are the newest stamps of the requests and of the
	// records of `rides` that were read, 0 if that is not known.
	requestsMS, ridesMS int64
}

// load reads a partition's checkpoint and fences earlier claims. A crash before
// it leaves nothing; what an earlier owner still appends to `rides` is void once
// this one has taken over.
func load(ctx context.Context, claim eventlog.Claim) (k kept, err error) {
	_, err = claim.Load(ctx, func(key, value []byte) error {
		if bytes.HasPrefix(key, []byte(queuePrefix)) {
			var queue starlingv1.ZoneQueueState
			if err := proto.Unmarshal(value, &queue); err != nil {
				return fmt.Errorf("state of %s: %w", key, err)
			}
			k.state.RestoreQueue(&queue)
			return nil
		}
		if string(key) != headerKey {
			var ride starlingv1.RideState
			if err := proto.Unmarshal(value, &ride); err != nil {
				return fmt.Errorf("state of ride %s: %w", key, err)
			}
			k.state.Restore(&ride)
			return nil
		}
		var header starlingv1.RidePartitionState
		if err := proto.Unmarshal(value, &header); err != nil {
			return fmt.Errorf("state of the partition: %w", err)
		}
		k.state.Owner = life.Owner{Epoch: header.Epoch, Generation: header.Generation, Nonce: header.Nonce, Address: header.Address}
		k.state.RequestsBelow, k.next = header.RequestsBelow, header.Next
		k.requestsMS, k.ridesMS = header.RequestsTimeMs, header.RidesTimeMs
		return nil
	})
	if err != nil {
		return kept{}, fmt.Errorf("load the state of rides: %w", err)
	}
	return k, nil
}

// clip sets the cursors back to where a log that was shortened ends or, after the
// epoch was raised, to the first record that was appended since. The state stands:
// what it knows of rides was read back before. No ride that it has forgotten comes
// to life again: a request that is stamped later than those that were read is too
// late for the name of such a ride.
func (k *kept) clip(ctx context.Context, log Log, n int32) error {
	cursors := []struct {
		topic  string
		offset *int64
		readMS int64
	}{{topics.Rides, &k.next, k.ridesMS}, {topics.RideRequests, &k.state.RequestsBelow, k.requestsMS}}
	for _, c := range cursors {
		bounds, err := log.Bounds(ctx, c.topic)
		if err != nil {
			return fmt.Errorf("bounds of %s: %w", c.topic, err)
		}
		if k.state.Owner.Epoch == log.Epoch() {
			c.readMS = 0 // offsets mean what they meant
		}
		if *c.offset, err = eventlog.Resume(ctx, log, c.topic, n, bounds[n], *c.offset, c.readMS); err != nil {
			return err
		}
	}
	return nil
}

// changes are the records of a checkpoint: the rides that changed, those that
// were forgotten, the queues, which are few, and the partition itself.
func changes(k *kept, changed, forgotten []string) ([]eventlog.Record, error) {
	state := &k.state
	var records []eventlog.Record
	put := func(key string, m proto.Message) error {
		value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			return fmt.Errorf("encode the state of %s: %w", key, err)
		}
		records = append(records, eventlog.Record{Key: []byte(key), Value: value})
		return nil
	}
	for _, name := range changed {
		if r := state.Ride(name); r != nil {
			if err := put(name, life.StateOf(r)); err != nil {
				return nil, err
			}
		}
	}
	for _, name := range forgotten {
		records = append(records, eventlog.Record{Key: []byte(name)})
	}
	for _, q := range state.Queues() {
		if err := put(queuePrefix+q.Zone, life.StateOfQueue(q)); err != nil {
			return nil, err
		}
	}
	o := state.Owner
	err := put(headerKey, &starlingv1.RidePartitionState{
		Epoch: o.Epoch, Generation: o.Generation, Nonce: o.Nonce, Address: o.Address, RequestsBelow: state.RequestsBelow, Next: k.next,
		RequestsTimeMs: k.requestsMS, RidesTimeMs: k.ridesMS,
	})
	return records, err
}
