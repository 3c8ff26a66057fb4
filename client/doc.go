// Package client is the driver app's side of the protocol, for apps and
// gateways written in Go. It is the reference implementation of the resend
// state machine in docs/driver-protocol.md.
//
//	conn, err := client.Dial("ingest.example:7600", client.DialOptions{})
//	reporter, err := client.NewReporter(conn, client.DefaultConfig(), client.Handlers{})
//	go reporter.Run(ctx)
//	err = reporter.Send(ctx, &starlingv1.Report{VehicleId: "taxi-7", Fixes: fixes})
//	err = reporter.Close(ctx) // waits until everything is acknowledged
package client
