package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/topics"
)

// Admin creates, checks and describes Starling's topics on a cluster. It is
// safe for concurrent use.
type Admin struct {
	cfg      Config
	topics   []topics.Topic
	cl       *kgo.Client
	adm      *kadm.Client
	logger   *slog.Logger
	ownsConn bool
}

// NewAdmin connects to no broker yet. Close must be called in the end.
func NewAdmin(cfg Config, all []topics.Topic, logger *slog.Logger) (*Admin, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	opts, err := clientOptions(&cfg, logger, unregistered())
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	return &Admin{cfg: cfg, topics: all, cl: cl, adm: kadm.NewClient(cl), logger: logger, ownsConn: true}, nil
}

// Close ends the connections.
func (a *Admin) Close() {
	if a.ownsConn {
		a.cl.Close()
	}
}

// TopicReport reports how one topic is on the cluster.
type TopicReport struct {
	// Name is the topic's name with its prefix.
	Name string `json:"name"`
	// Exists is false when the topic is missing.
	Exists bool `json:"exists"`
	// Created is true when EnsureTopics has just created it.
	Created bool `json:"created"`
	// Partitions and Replicas are as they are on the cluster.
	Partitions int `json:"partitions"`
	Replicas   int `json:"replicas"`
	// UnderReplicated is how many partitions lack a replica that is in sync.
	UnderReplicated int `json:"under_replicated"`
	// Configs are the settings that Starling declares, as they are.
	Configs map[string]string `json:"configs,omitempty"`
	// Differences are settings that are not as declared but may be so.
	Differences []string `json:"differences,omitempty"`
	// Fault reports why Starling refuses to run with the topic; empty if it
	// doesn't.
	Fault string `json:"fault,omitempty"`
}

// Report reports how all topics are on the cluster.
type Report struct {
	Topics []TopicReport `json:"topics"`
	// Epoch is the log's epoch, zero when there is none yet.
	Epoch int64 `json:"epoch"`
}

// Err names every topic that is missing or with which Starling refuses to run.
func (r *Report) Err() error {
	var faults []error
	for _, t := range r.Topics {
		switch {
		case !t.Exists:
			faults = append(faults, fmt.Errorf("topic %s does not exist: create it with `starling topics create`, or set create_topics", t.Name))
		case t.Fault != "":
			faults = append(faults, fmt.Errorf("%w: %s", eventlog.ErrConfiguredOtherwise, t.Fault))
		}
	}
	return errors.Join(faults...)
}

// DescribeTopics looks at the topics and changes nothing.
func (a *Admin) DescribeTopics(ctx context.Context) (Report, error) {
	report, err := a.describe(ctx)
	if err != nil || !report.Topics[0].Exists {
		return report, err
	}
	report.Epoch, err = a.readEpoch(ctx)
	return report, err
}

// EnsureTopics creates what is missing, writes the first epoch of a new log,
// and describes the result. It never changes a topic that exists. It is safe
// to be called again after a crash, and by several processes at once.
func (a *Admin) EnsureTopics(ctx context.Context) (Report, error) {
	before, err := a.describe(ctx)
	if err != nil {
		return Report{}, err
	}
	if !before.Topics[0].Exists && slices.ContainsFunc(before.Topics[1:], func(t TopicReport) bool { return t.Exists }) {
		return before, fmt.Errorf("topic %s is missing while others exist: with it the log's epoch was lost; set one above any that was in use with `starling topics raise-epoch`", before.Topics[0].Name)
	}
	created, err := a.create(ctx, before)
	if err != nil {
		return Report{}, err
	}
	report, err := a.describeAll(ctx)
	if err != nil {
		return Report{}, err
	}
	for i := range report.Topics {
		report.Topics[i].Created = created[report.Topics[i].Name]
	}
	if err := report.Err(); err != nil {
		return report, err
	}
	// A crash before this leaves topics without an epoch; the next call gets
	// here again. Processes that race write the same number.
	if report.Epoch, err = a.readEpoch(ctx); err != nil || report.Epoch != 0 {
		return report, err
	}
	report.Epoch = 1
	return report, a.writeEpoch(ctx, 1)
}

// create makes the missing topics and waits until every partition has a
// leader.
func (a *Admin) create(ctx context.Context, before Report) (created map[string]bool, err error) {
	replicas, minISR, err := a.replication(ctx)
	if err != nil {
		return nil, err
	}
	created = make(map[string]bool)
	for i, d := range declare(&a.cfg, a.topics, minISR) {
		if before.Topics[i].Exists {
			continue
		}
		configs := make(map[string]*string, len(d.configs))
		for k, v := range d.configs {
			configs[k] = kadm.StringPtr(v)
		}
		resp, err := a.adm.CreateTopic(ctx, int32(d.partitions), int16(replicas), configs, d.name)
		switch {
		case errors.Is(err, kerr.TopicAlreadyExists): // another process was quicker
		case err != nil:
			return nil, fmt.Errorf("create topic %s: %w %s", d.name, err, resp.ErrMessage)
		default:
			created[d.name] = true
			a.logger.Info("created topic", "topic", d.name, "partitions", d.partitions, "replicas", replicas, "min_insync_replicas", minISR)
		}
	}
	return created, a.awaitLeaders(ctx)
}

// replication resolves the defaults that depend on the size of the cluster.
func (a *Admin) replication(ctx context.Context) (replicas, minISR int, err error) {
	replicas, minISR = a.cfg.ReplicationFactor, a.cfg.MinISR
	if replicas == 0 {
		brokers, err := a.adm.ListBrokers(ctx)
		if err != nil {
			return 0, 0, fmt.Errorf("list brokers: %w", err)
		}
		replicas = 3
		if len(brokers) < 3 {
			replicas = 1
		}
	}
	if minISR == 0 {
		minISR = max(1, replicas-1)
	}
	return replicas, minISR, nil
}

func (a *Admin) names() []string {
	var names []string
	for _, d := range declare(&a.cfg, a.topics, 1) {
		names = append(names, d.name)
	}
	return names
}

func (a *Admin) awaitLeaders(ctx context.Context) error {
	names := a.names()
	for {
		details, err := a.adm.ListTopics(ctx, names...)
		if err != nil {
			return fmt.Errorf("wait for the leaders of new topics: %w", err)
		}
		ready := true
		for _, name := range names {
			t := details[name]
			ready = ready && t.Err == nil && len(t.Partitions) > 0
			for _, p := range t.Partitions {
				ready = ready && p.Err == nil && p.Leader >= 0
			}
		}
		if ready {
			return nil
		}
		if err := retry.Sleep(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("wait for the leaders of new topics: %w", err)
		}
	}
}

// describeAll describes the topics when all of them are to be seen: the broker
// that answers may learn of a new topic later than the others.
func (a *Admin) describeAll(ctx context.Context) (Report, error) {
	for {
		report, err := a.describe(ctx)
		if err != nil {
			return Report{}, err
		}
		if !slices.ContainsFunc(report.Topics, func(t TopicReport) bool { return !t.Exists }) {
			return report, nil
		}
		if err := retry.Sleep(ctx, 100*time.Millisecond); err != nil {
			return report, fmt.Errorf("wait until the new topics are known: %w", err)
		}
	}
}

// describe looks at everything but the epoch.
func (a *Admin) describe(ctx context.Context) (Report, error) {
	details, err := a.adm.ListTopics(ctx, a.names()...)
	if err != nil {
		return Report{}, fmt.Errorf("list topics: %w", err)
	}
	var existing []string
	for _, name := range a.names() {
		switch t := details[name]; {
		case errors.Is(t.Err, kerr.UnknownTopicOrPartition):
		case t.Err != nil:
			return Report{}, fmt.Errorf("describe topic %s: %w", name, t.Err)
		default:
			existing = append(existing, name)
		}
	}
	configs, err := a.configs(ctx, existing)
	if err != nil {
		return Report{}, err
	}
	// What is declared for new topics is not asked of those that exist, unless
	// it is set: an operator may have chosen the replication.
	minISR := max(1, a.cfg.MinISR)
	var report Report
	for _, d := range declare(&a.cfg, a.topics, minISR) {
		t := TopicReport{Name: d.name}
		if have, ok := configs[d.name]; ok {
			describeOne(&t, &d, details[d.name], have)
		}
		report.Topics = append(report.Topics, t)
	}
	return report, nil
}

func describeOne(t *TopicReport, d *declared, detail kadm.TopicDetail, have map[string]string) {
	t.Exists = true
	t.Partitions = len(detail.Partitions)
	t.Replicas = detail.Partitions.NumReplicas()
	for _, p := range detail.Partitions {
		if len(p.ISR) < len(p.Replicas) {
			t.UnderReplicated++
		}
	}
	t.Configs = make(map[string]string)
	for _, key := range slices.Sorted(maps.Keys(d.configs)) {
		t.Configs[key] = have[key]
		if differs(key, d.configs[key], have[key]) && !slices.Contains(d.vital, key) {
			t.Differences = append(t.Differences, fmt.Sprintf("%s=%s, declared as %s", key, have[key], d.configs[key]))
		}
	}
	if err := d.faultOf(t.Partitions, have); err != nil {
		t.Fault = err.Error()
	}
}

func (a *Admin) configs(ctx context.Context, names []string) (map[string]map[string]string, error) {
	out := make(map[string]map[string]string)
	if len(names) == 0 {
		return out, nil
	}
	described, err := a.adm.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("describe the configs of topics: %w", err)
	}
	for _, r := range described {
		if errors.Is(r.Err, kerr.UnknownTopicOrPartition) {
			continue // deleted just now
		}
		if r.Err != nil {
			return nil, fmt.Errorf("describe the configs of topic %s: %w", r.Name, r.Err)
		}
		out[r.Name] = make(map[string]string)
		for _, c := range r.Configs {
			out[r.Name][c.Key] = c.MaybeValue()
		}
	}
	return out, nil
}
