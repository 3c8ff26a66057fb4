package clickhouse_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/history/clickhouse"
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/history/store/storetest"
)

func TestConformance(t *testing.T) {
	_, cfg := migrated(t)
	storetest.Run(t, func(t *testing.T, batches []*row.Batch) store.Store {
		sink := sinkOf(t, cfg)
		for _, b := range batches {
			_, err := sink.Write(t.Context(), b)
			require.NoError(t, err)
		}
		_, err := sink.Rollup(t.Context(), all)
		require.NoError(t, err)
		s, err := clickhouse.NewStore(cfg)
		require.NoError(t, err)
		return s
	})
}
