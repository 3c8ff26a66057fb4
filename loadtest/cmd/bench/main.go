// Bench measures Starling beside the bare pipeline and prints a table, or JSON.
// `make bench` runs it. Its own children serve the bare pipeline.
//
// Exit codes: 0 measured; 1 something failed; 2 wrong usage; 3 a goal was
// missed, with -check.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/starling-fleet/starling/internal/kafkatest"
	"github.com/starling-fleet/starling/loadtest/bench"
	"github.com/starling-fleet/starling/loadtest/report"
)

func main() {
	report.Main("bench", func(ctx context.Context, args []string) (int, error) {
		if len(args) > 0 && args[0] == "serve" {
			return serve(ctx, args[1:])
		}
		return measure(ctx, args)
	})
}

// measure is the command itself.
func measure(ctx context.Context, args []string) (code int, err error) {
	o := bench.DefaultOptions()
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
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
	if err := flags.Parse(args); err != nil {
		return 2, nil // flag has said why
	}
	o.FixesPerReport = nil
	for _, s := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			return 2, fmt.Errorf("-fixes-per-report: %w", err)
		}
		o.FixesPerReport = append(o.FixesPerReport, n)
	}
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	o.Serve = []string{self, "serve"}
	o.Progress = report.Progress()
	results, err := measureLogs(ctx, o, strings.Split(*logs, ","), *brokers)
	if *asJSON {
		_ = report.JSON(os.Stdout, results)
	} else {
		for _, r := range results {
			fmt.Println(r)
		}
	}
	if err != nil {
		return 1, err
	}
	for _, r := range results {
		if *check && len(r.Misses()) > 0 {
			return 3, nil
		}
	}
	return 0, nil
}

// measureLogs measures one log after the other and returns what it has.
func measureLogs(ctx context.Context, o bench.Options, logs []string, brokers string) ([]bench.Result, error) {
	var results []bench.Result
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
			cluster, err := kafkatest.Start(ctx, kafkatest.Options{})
			if err != nil {
				return results, fmt.Errorf("start Kafka: %w", err)
			}
			defer func() { _ = cluster.Stop() }()
			o.KafkaBrokers, o.Note = cluster.Brokers(), "One broker of Apache Kafka "+kafkatest.Version+" runs on the same CPUs."
		default:
			return results, fmt.Errorf("-logs: %q is neither local nor kafka", log)
		}
		r, err := bench.Run(ctx, o)
		if err != nil {
			return results, err
		}
		results = append(results, r)
	}
	return results, nil
}
