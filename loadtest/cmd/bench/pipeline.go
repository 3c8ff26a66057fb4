package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/starling-fleet/starling/internal/kafkatest"
	"github.com/starling-fleet/starling/loadtest/pipeline"
)

// pipelineCommand is `bench pipeline`. Children of it serve the baseline.
func pipelineCommand(ctx context.Context, args []string) (code int, err error) {
	o := pipeline.DefaultOptions()
	flags := newFlags("pipeline")
	flags.StringVar(&o.Starling, "starling", "bin/starling", "the starling binary")
	sizes := flags.String("fixes-per-report", "1,5,50", "sizes to measure")
	flags.IntVar(&o.Rounds, "rounds", o.Rounds, "how often each measurement is repeated")
	flags.DurationVar(&o.Warmup, "warmup", o.Warmup, "time before each measurement")
	flags.DurationVar(&o.Duration, "duration", o.Duration, "time of each measurement")
	flags.IntVar(&o.HeapVehicles, "heap-vehicles", o.HeapVehicles, "vehicles when the heap is measured; 0 leaves it out")
	flags.StringVar(&o.WorkDir, "work-dir", "", "where the local logs are put; empty means the system's temporary folder")
	logs := flags.String("logs", "local,kafka", "which logs to measure")
	brokers := flags.String("kafka-brokers", "", "Kafka to measure; empty means to start one broker here (needs Java and Maven)")
	asJSON := flags.Bool("json", false, "print JSON")
	check := flags.Bool("check", false, "exit with 3 when a goal is missed")
	if code, ok := parse(flags, args); !ok {
		return code, nil
	}
	o.FixesPerReport = nil
	for _, s := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			return exitUsage, fmt.Errorf("-fixes-per-report: %w", err)
		}
		o.FixesPerReport = append(o.FixesPerReport, n)
	}
	self, err := os.Executable()
	if err != nil {
		return exitFailed, err
	}
	o.Serve = []string{self, serveName}
	o.Progress = progress()
	results, err := measureLogs(ctx, o, strings.Split(*logs, ","), *brokers)
	if err := errors.Join(err, writeReport(ctx, results, []string{o.Starling}, "the server, the load generator and, where one is started here, Kafka's broker", *asJSON)); err != nil {
		return exitFailed, err
	}
	if *check && len(results.Misses()) > 0 {
		return exitMissed, nil
	}
	return exitOK, nil
}

// measureLogs measures one log after the other and returns what it has.
func measureLogs(ctx context.Context, o pipeline.Options, logs []string, brokers string) (pipeline.Results, error) {
	var results pipeline.Results
	for _, log := range logs {
		switch log {
		case "local":
			o.KafkaBrokers, o.Note = nil, ""
		case "kafka":
			o.HeapVehicles = 0 // the heap is the same
			if brokers != "" {
				o.KafkaBrokers, o.Note = strings.Split(brokers, ","), "Kafka at "+brokers+"."
				break
			}
			cluster, err := kafkatest.Start(ctx, kafkatest.Options{Measured: true})
			if err != nil {
				return results, fmt.Errorf("start Kafka: %w", err)
			}
			defer func() { _ = cluster.Stop() }()
			o.KafkaBrokers, o.Note = cluster.Brokers(), "One broker of Apache Kafka "+kafkatest.Version+" runs on the same CPUs."
		default:
			return results, fmt.Errorf("-logs: %q is neither local nor kafka", log)
		}
		r, err := pipeline.Run(ctx, o)
		if err != nil {
			return results, err
		}
		results = append(results, r)
	}
	return results, nil
}
