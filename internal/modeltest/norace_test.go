//go:build !race

package modeltest

const (
	defaultSeeds   = 10_000
	repeatedSeeds  = 60
	silentVehicles = 12_000
)
