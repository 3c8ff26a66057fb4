package valid_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/valid"
)

func TestFaultsNameFieldValueAndRule(t *testing.T) {
	var f valid.Faults
	require.NoError(t, f.Err())
	f.Need(true, "fine", 1, "1")
	f.Add(nil)
	f.In("section", nil)
	valid.Between(&f, "on_the_bound", 3, 1, 3)
	valid.AtLeast(&f, "on_the_bound", time.Second, time.Second)
	valid.Positive(&f, "small", 0.1)
	require.NoError(t, f.Err())

	f.Need(false, "format", "xml", "text or json")
	valid.Between(&f, "timeout", 2*time.Hour, 10*time.Millisecond, time.Hour)
	valid.Between(&f, "speed_mps", math.NaN(), 1, 1_000_000)
	valid.AtLeast(&f, "interval", 90*time.Minute, 2*time.Hour)
	valid.Positive(&f, "count", 0)
	f.Add(errors.New("found elsewhere"))
	var inner valid.Faults
	valid.Positive(&inner, "scale", -0.5)
	f.In("filter", inner.Err())
	require.EqualError(t, f.Err(), `format is "xml": must be text or json
timeout is 2h: must be between 10ms and 1h
speed_mps is NaN: must be between 1 and 1000000
interval is 1h30m: must be at least 2h
count is 0: must be positive
found elsewhere
filter: scale is -0.5: must be positive`)
}
