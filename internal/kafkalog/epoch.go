package kafkalog

import (
	"context"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// epochKey is the key of the one record of metaTopic that counts; its value is
// the epoch in decimal.
const epochKey = "epoch"

// RaiseEpoch declares that state was lost or the log was shortened: it stores
// the next epoch, or atLeast if that is more, and returns it. Processes that
// are running keep the epoch with which they started, so all roles must be
// stopped. It creates the topic of the epoch when that is what was lost.
func (a *Admin) RaiseEpoch(ctx context.Context, atLeast int64) (int64, error) {
	report, err := a.describe(ctx)
	if err != nil {
		return 0, err
	}
	var epoch int64
	if meta := report.Topics[0]; !meta.Exists {
		if atLeast < 1 {
			return 0, fmt.Errorf("topic %s is missing, so the epoch to raise is not known: name one above any that was in use", meta.Name)
		}
		replicas, minISR, err := a.replication(ctx)
		if err != nil {
			return 0, err
		}
		configs := make(map[string]*string)
		for k, v := range declare(&a.cfg, nil, minISR)[0].configs {
			configs[k] = kadm.StringPtr(v)
		}
		if _, err := a.adm.CreateTopic(ctx, 1, int16(replicas), configs, meta.Name); err != nil {
			return 0, fmt.Errorf("create topic %s: %w", meta.Name, err)
		}
	} else if epoch, err = a.readEpoch(ctx); err != nil {
		return 0, err
	}
	epoch = max(epoch+1, atLeast)
	return epoch, a.writeEpoch(ctx, epoch)
}

// readEpoch returns the newest epoch, or zero if none was ever written.
func (a *Admin) readEpoch(ctx context.Context) (int64, error) {
	var epoch int64
	err := scanPartition(ctx, a.cl, a.cfg.TopicPrefix+metaTopic, 0, 1<<20, func(r *kgo.Record) error {
		if string(r.Key) != epochKey {
			return nil
		}
		var err error
		epoch, err = strconv.ParseInt(string(r.Value), 10, 64)
		if err != nil || epoch < 1 {
			return fmt.Errorf("the epoch at offset %d is %q: must be a positive number", r.Offset, r.Value)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read the epoch: %w", err)
	}
	return epoch, nil
}

// writeEpoch uses a client of its own: one that has written to the topic
// before remembers it by its id, and the topic may have been made anew.
func (a *Admin) writeEpoch(ctx context.Context, epoch int64) error {
	opts, err := clientOptions(&a.cfg, a.logger, unregistered())
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer cl.Close()
	r := &kgo.Record{Topic: a.cfg.TopicPrefix + metaTopic, Key: []byte(epochKey), Value: strconv.AppendInt(nil, epoch, 10)}
	if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
		return fmt.Errorf("write the epoch: %w", err)
	}
	return nil
}
