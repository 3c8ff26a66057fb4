//go:build !race

package modeltest

const defaultSeeds = 10_000
