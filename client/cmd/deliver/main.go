// Command deliver delivers reports from standard input, one a line as protobuf's
// JSON, by the driver SDK. It is what `starling conformance` runs to judge the SDK,
// and an example of its use.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := deliver(ctx, os.Stdin); err != nil {
		fmt.Fprintf(os.Stderr, "deliver: %v\n", err)
		os.Exit(1)
	}
}

// deliver returns when everything is acknowledged, or can't be delivered.
func deliver(ctx context.Context, in io.Reader) error {
	cfg := client.DefaultConfig()
	if seconds, err := strconv.ParseFloat(os.Getenv("STARLING_ACK_TIMEOUT"), 64); err == nil {
		cfg.AckTimeout = time.Duration(seconds * float64(time.Second))
	}
	options := client.DialOptions{}
	if token := os.Getenv("STARLING_TOKEN"); token != "" {
		options.Token = func(context.Context) (string, error) { return token, nil }
	}
	conn, err := client.Dial(os.Getenv("STARLING_INGEST"), options)
	if err != nil {
		return err
	}
	defer conn.Close()
	reporter, err := client.NewReporter(conn, cfg, client.Troubles(func(err error) { fmt.Fprintf(os.Stderr, "deliver: %v\n", err) }))
	if err != nil {
		return err
	}
	ran := make(chan error, 1)
	go func() { ran <- reporter.Run(ctx) }()
	sendErr := sendAll(ctx, in, reporter)
	if err := reporter.Close(ctx); err != nil {
		return err
	}
	if err := <-ran; err != nil {
		return err
	}
	return sendErr
}

// sendAll queues each line's report.
func sendAll(ctx context.Context, in io.Reader, reporter *client.Reporter) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		report := &starlingv1.Report{}
		if err := protojson.Unmarshal(lines.Bytes(), report); err != nil {
			return fmt.Errorf("a line is no report: %w", err)
		}
		if err := reporter.Send(ctx, report); err != nil {
			return err
		}
	}
	return lines.Err()
}
