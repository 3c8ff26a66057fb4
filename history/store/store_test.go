package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/history/store"
)

func TestPercentileIsTheValueThatAShareIsBelow(t *testing.T) {
	require.Zero(t, store.Percentile(nil, 0.5))
	require.Equal(t, int32(7), store.Percentile([]int32{7}, 0.95))
	require.Equal(t, int32(3), store.Percentile([]int32{4, 1, 3, 2}, 0.5))
	hundred := make([]int32, 100)
	for i := range hundred {
		hundred[i] = int32(100 - i)
	}
	require.Equal(t, int32(96), store.Percentile(hundred, 0.95))
	require.Equal(t, int32(86), store.Percentile(hundred, 0.85))
}
