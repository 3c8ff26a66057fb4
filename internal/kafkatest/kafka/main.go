// Command kafka runs a real Apache Kafka on free loopback ports until it is
// interrupted, and prints the brokers' addresses: a cluster to try Starling on.
// Its data goes when it ends.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/starling-fleet/starling/internal/kafkatest"
)

func main() {
	nodes := flag.Int("nodes", 1, "brokers: 1 or 3")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *nodes); err != nil {
		fmt.Fprintln(os.Stderr, "kafka:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, nodes int) error {
	cluster, err := kafkatest.Start(ctx, kafkatest.Options{Nodes: nodes})
	if err != nil {
		return err
	}
	fmt.Println(strings.Join(cluster.Brokers(), ","))
	<-ctx.Done()
	return cluster.Stop()
}
