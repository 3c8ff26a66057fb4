// Package conformance judges clients of the ingest service: it is a server that
// breaks streams, answers late, repeats itself and refuses, and it holds whoever
// reports to it to docs/driver-protocol.md. docs/conformance.md has the rules and
// the scenarios.
//
//	verdict := conformance.Run(ctx, scenario, conformance.Options{Command: []string{"python3", "deliver.py"}})
//
// Judge is the rules alone, a state machine over what a server sees.
package conformance
