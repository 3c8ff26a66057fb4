//go:build race

package modeltest

// The race detector makes a run six times as long; make model runs without it.
const (
	defaultSeeds   = 300
	repeatedSeeds  = 10
	drawnLogs      = 500
	streets        = 50
	silentVehicles = 3_000
)
