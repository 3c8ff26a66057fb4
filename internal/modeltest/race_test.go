//go:build race

package modeltest

// The race detector makes a run six times as long.
const defaultSeeds = 500
