//go:build race

package owner_test

const raceDetector = true
