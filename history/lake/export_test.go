package lake

import (
	"context"
	"iter"

	"github.com/starling-fleet/starling/history/store"
)

// SetStep has fn called before each durable step of a write.
func (s *Sink) SetStep(fn func(name string) error) { s.files.(*directory).step = fn }

// FewAtOnce is a reader that gathers three visits in one pass.
type FewAtOnce struct{ *Reader }

// Visits implements store.Store.
func (r FewAtOnce) Visits(ctx context.Context, q store.VisitQuery) iter.Seq2[store.Visit, error] {
	return r.visits(ctx, q, 3)
}
