// Package modeltest runs the real roles (ingest, tracker, matcher) over the log
// in memory, disturbs them as a seed selects and holds what comes out to a slow
// model of the whole semantics. Everything is in its tests; time is that of
// testing/synctest, so hours cost nothing and a seed repeats its run.
//
//	go test ./internal/modeltest -run TestModel -seed 4711
package modeltest
