package storetest

import (
	"context"
	"iter"
	"testing"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
)

// modelStore is the model as a store.
type modelStore struct {
	t *testing.T
	m *model
}

var _ store.Store = (*modelStore)(nil)

func each[T any](ctx context.Context, all []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		if ctx.Err() != nil {
			yield(none, ctx.Err())
			return
		}
		for _, v := range all {
			if !yield(v, nil) {
				return
			}
		}
	}
}

// Track implements store.Store.
func (s *modelStore) Track(ctx context.Context, q store.TrackQuery) iter.Seq2[row.Fix, error] {
	return each(ctx, s.m.trackOf(q))
}

// CellStats implements store.Store.
func (s *modelStore) CellStats(ctx context.Context, q store.CellQuery) iter.Seq2[store.CellStat, error] {
	return each(ctx, s.m.statsOf(s.t, q))
}

// Visits implements store.Store.
func (s *modelStore) Visits(ctx context.Context, q store.VisitQuery) iter.Seq2[store.Visit, error] {
	return each(ctx, s.m.visitsOf(s.t, q))
}

// Explain implements store.Store.
func (s *modelStore) Explain(_ context.Context, vehicle string, deviceTimeMS int64) (store.Explanation, error) {
	return s.m.explanationOf(fixID{vehicle, deviceTimeMS}), nil
}

// Close implements store.Store.
func (s *modelStore) Close() error { return nil }
