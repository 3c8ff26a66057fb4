//go:build !race

package modeltest

const (
	defaultSeeds   = 10_000
	repeatedSeeds  = 60
	drawnLogs      = 5_000
	streets        = 1000
	silentVehicles = 12_000
)
