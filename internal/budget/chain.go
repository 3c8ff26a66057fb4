package budget

// Links are an element's place in a chain.
type Links[T any] struct{ older, newer *T }

// Newer is the element that came next, or nil.
func (l *Links[T]) Newer() *T { return l.newer }

// Chain is elements by age. They hold their links themselves, so that a chain needs no
// memory besides them; an element may be in as many chains as it has Links, in each
// once. The zero value of a chain is of no use: NewChain makes one. It is not safe for
// concurrent use.
type Chain[T any] struct {
	oldest, newest *T
	of             func(*T) *Links[T]
}

// NewChain returns an empty chain of elements that hold their links of it where of says.
func NewChain[T any](of func(*T) *Links[T]) Chain[T] { return Chain[T]{of: of} }

// Oldest is the element that is longest in the chain, or nil.
func (c *Chain[T]) Oldest() *T { return c.oldest }

// Push adds an element, as the newest.
func (c *Chain[T]) Push(e *T) {
	*c.of(e) = Links[T]{older: c.newest}
	if c.newest != nil {
		c.of(c.newest).newer = e
	} else {
		c.oldest = e
	}
	c.newest = e
}

// Remove takes out an element, which must be in the chain.
func (c *Chain[T]) Remove(e *T) {
	at := c.of(e)
	if at.older != nil {
		c.of(at.older).newer = at.newer
	} else {
		c.oldest = at.newer
	}
	if at.newer != nil {
		c.of(at.newer).older = at.older
	} else {
		c.newest = at.older
	}
	*at = Links[T]{}
}
