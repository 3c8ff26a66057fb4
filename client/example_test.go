package client_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// startServer stands for a server at an address of its own.
func startServer() (address string, stop func()) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	starlingv1.RegisterIngestServiceServer(server, &fakeIngest{stored: map[reportKey]int{}})
	go func() { _ = server.Serve(listener) }()
	return listener.Addr().String(), server.Stop
}

// A phone reports its fixes, and ends when all are acknowledged.
func Example() {
	address, stop := startServer()
	defer stop()

	conn, err := client.Dial(address, client.DialOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	reporter, err := client.NewReporter(conn, client.DefaultConfig(), client.Handlers{
		Acknowledged: func(r client.Receipt) { fmt.Printf("%s: report %d is durable\n", r.VehicleID, r.Sequence) },
		Refused:      func(f client.Refusal) { fmt.Println(f.Description) },
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	go func() { _ = reporter.Run(ctx) }() // its error is Close's too

	for i := range 2 {
		err := reporter.Send(ctx, &starlingv1.Report{
			VehicleId: "taxi-7",
			Fixes: []*starlingv1.Fix{{
				DeviceTimeMs: time.Now().UnixMilli(), // when it was taken
				Latitude:     48.2085 + float64(i)*1e-4,
				Longitude:    16.373,
				AccuracyM:    proto.Float32(5), // leave out what is not known
			}},
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	if err := reporter.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// taxi-7: report 1 is durable
	// taxi-7: report 2 is durable
}

// An app that keeps its queue over a restart states session and sequence itself.
func ExampleReporter_Send() {
	address, stop := startServer()
	defer stop()

	conn, err := client.Dial(address, client.DialOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	reporter, err := client.NewReporter(conn, client.DefaultConfig(), client.Handlers{
		Acknowledged: func(r client.Receipt) { fmt.Printf("forget report %d of session %d\n", r.Sequence, r.SessionID) },
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	go func() { _ = reporter.Run(ctx) }()
	kept := []*starlingv1.Report{ // read from the app's store
		{VehicleId: "taxi-7", SessionId: 8102462309381123, Sequence: 41, Availability: starlingv1.Availability_AVAILABILITY_FREE},
		{VehicleId: "taxi-7", SessionId: 8102462309381123, Sequence: 42, Availability: starlingv1.Availability_AVAILABILITY_BUSY},
	}
	for _, report := range kept {
		if err := reporter.Send(ctx, report); err != nil {
			log.Fatal(err)
		}
	}
	if err := reporter.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// forget report 41 of session 8102462309381123
	// forget report 42 of session 8102462309381123
}

// A token proves who reports. It is asked for again when the server wants another.
func ExampleDial() {
	conn, err := client.Dial("127.0.0.1:7600", client.DialOptions{ // elsewhere, TLS is needed
		Token: func(context.Context) (string, error) {
			token, err := os.ReadFile("/run/secrets/starling")
			return strings.TrimSpace(string(token)), err
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(conn.Target())
	_ = conn.Close()
	// Output: 127.0.0.1:7600
}
