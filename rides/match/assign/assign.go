// Package assign solves the linear assignment problem over sparse costs: which
// row takes which column, each at most once, so that the sum of the costs is
// the least. It is pure.
//
// A row may stay without a column at a cost of its own, so there is always a
// solution, rows and columns may differ in number, and an edge that is not there
// is forbidden. MostFirst sets those costs so that as many rows as possible have
// a column and the sum decides among such assignments only.
//
// The method is that of successive shortest augmenting paths with column duals,
// after row reductions: R. Jonker and A. Volgenant, "A shortest augmenting path
// algorithm for dense and sparse linear assignment problems", Computing 38
// (1987); its rectangular form is that of D. F. Crouse, "On implementing 2D
// rectangular assignment algorithms", IEEE Transactions on Aerospace and
// Electronic Systems 52 (2016). Paths are searched by Dijkstra's method with a
// heap, as the sparse form needs. That a row stays alone is a path that ends at
// it, not a column: the number of columns does not grow with the rows.
package assign

import (
	"fmt"
	"math"
)

// None is the column of a row that has none.
const None = -1

// Problem is what is to be solved. Rows are added one after another, each with
// its edges; Reset empties it and keeps its memory.
type Problem struct {
	columns int32
	// start is where the edges of each row begin; those of the last end with the
	// slices.
	start  []int32
	column []int32
	cost   []float64
	alone  []float64
}

// Reset empties the problem and sets the number of columns.
func (p *Problem) Reset(columns int) {
	p.columns = int32(columns)
	p.start, p.column, p.cost, p.alone = p.start[:0], p.column[:0], p.cost[:0], p.alone[:0]
}

// Row adds a row that may stay without a column at a cost. Edges are added to
// the last row.
func (p *Problem) Row(alone float64) {
	p.start, p.alone = append(p.start, int32(len(p.column))), append(p.alone, alone)
}

// Edge lets the last row take a column at a cost; an infinite one forbids it.
// There must be a row. Of two edges to one column the cheaper counts.
func (p *Problem) Edge(column int, cost float64) {
	if math.IsInf(cost, 1) {
		return
	}
	p.column, p.cost = append(p.column, int32(column)), append(p.cost, cost)
}

// Rows returns how many rows there are.
func (p *Problem) Rows() int { return len(p.start) }

// MostFirst replaces the costs of staying alone by one that is so large that no
// assignment of fewer rows has a lesser sum. Costs keep as many digits as it
// leaves them: about 15 less those of rows times the range of the costs.
func (p *Problem) MostFirst() {
	least, most := 0.0, 0.0
	for _, c := range p.cost {
		least, most = min(least, c), max(most, c)
	}
	dear := most + float64(p.Rows())*(most-least) + 1
	for i := range p.alone {
		p.alone[i] = dear
	}
}

// validate returns an error that names the first edge or row that breaks a rule.
func (p *Problem) validate() error {
	for i, c := range p.alone {
		if math.IsNaN(c) || math.IsInf(c, 0) {
			return fmt.Errorf("cost of row %d alone is %v: must be finite", i, c)
		}
	}
	for e, c := range p.cost {
		if p.column[e] < 0 || p.column[e] >= p.columns {
			return fmt.Errorf("edge %d: column %d is not one of %d", e, p.column[e], p.columns)
		}
		if math.IsNaN(c) || math.IsInf(c, 0) {
			return fmt.Errorf("edge %d: cost %v must be finite", e, c)
		}
	}
	return nil
}

// edges returns where the edges of a row begin and end.
func (p *Problem) edges(row int32) (from, to int32) {
	if int(row)+1 < len(p.start) {
		return p.start[row], p.start[row+1]
	}
	return p.start[row], int32(len(p.column))
}

// Solver keeps the memory of its work from one problem to the next. The zero
// value is ready. It is not safe for concurrent use.
type Solver struct {
	p *Problem
	// columnOf and its edge are the row's, None for a row alone; rowOf is the
	// column's, None for a free column.
	columnOf, edgeOf, rowOf []int32
	// dual of each column is 0 while it is free and never above: with that of a
	// row, the least of cost less dual over its edges and of its cost alone, no
	// edge costs less than its two duals, and one that is taken as much.
	dual []float64

	// What one search knows of the columns: valid where mark is its number.
	distance []float64
	via      []int32 // the edge by which the column is reached
	viaRow   []int32
	mark     []uint32 // 2*search while reached, plus 1 once settled
	search   uint32
	heap     []reached
	settled  []int32
	free     []int32
	kicked   []int32
}

// Solve returns the column of each row, None for one that stays alone, and the
// sum of the costs, those alone included. The slice is the solver's until its
// next call. It fails when a cost is not a finite number or a column is not one
// of the problem's.
func (s *Solver) Solve(p *Problem) (columnOf []int32, cost float64, err error) {
	if err := p.validate(); err != nil {
		return nil, 0, err
	}
	s.reset(p)
	s.reduce()
	for _, row := range s.free {
		s.augment(row)
	}
	for row, e := range s.edgeOf {
		if e == None {
			cost += p.alone[row]
		} else {
			cost += p.cost[e]
		}
	}
	return s.columnOf, cost, nil
}

func (s *Solver) reset(p *Problem) {
	rows, columns := p.Rows(), int(p.columns)
	s.p = p
	s.columnOf, s.edgeOf, s.rowOf = sized(s.columnOf, rows, None), sized(s.edgeOf, rows, None), sized(s.rowOf, columns, None)
	s.dual, s.distance = sized(s.dual, columns, 0), sized(s.distance, columns, 0)
	s.via, s.viaRow, s.mark = sized(s.via, columns, 0), sized(s.viaRow, columns, 0), sized(s.mark, columns, 0)
	s.search, s.free = 0, s.free[:0]
}

// sized returns a slice of a length with each element set to v.
func sized[T any](of []T, length int, v T) []T {
	if cap(of) < length {
		of = make([]T, length)
	}
	of = of[:length]
	for i := range of {
		of[i] = v
	}
	return of
}

// reductions is how often rows that lost their column try again before paths are
// searched; Jonker and Volgenant do it twice.
const reductions = 2

// reduce gives each row the column that is the cheapest to it. A column that
// several want goes to the one that came last, and gets dearer by what the row
// would lose with its second choice.
func (s *Solver) reduce() {
	for row := range int32(s.p.Rows()) {
		s.free = append(s.free, row)
	}
	for range reductions {
		s.kicked = s.kicked[:0]
		// A column may get dearer by less and less for very long.
		steps := 2 * len(s.free)
		for _, row := range s.free {
			for ; row != None && steps > 0; steps-- {
				row = s.reduceRow(row)
			}
			if row != None {
				s.kicked = append(s.kicked, row)
			}
		}
		s.free, s.kicked = s.kicked, s.free
	}
}

// reduceRow gives a row its cheapest column, or leaves it alone when that is
// cheaper. It returns the row that lost the column if that one is to try at once:
// when the column got dearer, so that this ends. Otherwise it is left for later.
func (s *Solver) reduceRow(row int32) int32 {
	first, second := s.p.alone[row], math.Inf(1)
	at := int32(None)
	from, to := s.p.edges(row)
	for e := from; e < to; e++ {
		switch c := s.p.cost[e] - s.dual[s.p.column[e]]; {
		case c < first:
			first, second, at = c, first, e
		case c < second:
			second = c
		}
	}
	if at == None {
		return None // alone, for good: others only make columns dearer
	}
	column := s.p.column[at]
	loser := s.rowOf[column]
	dearer := second > first
	if loser != None {
		if !dearer {
			s.kicked = append(s.kicked, row)
			return None
		}
		s.columnOf[loser], s.edgeOf[loser] = None, None
	}
	if dearer {
		s.dual[column] -= second - first
	}
	s.take(row, at)
	return loser
}

func (s *Solver) take(row, edge int32) {
	s.columnOf[row], s.edgeOf[row], s.rowOf[s.p.column[edge]] = s.p.column[edge], edge, row
}

// reached is a column in the heap, by its distance when it was put there.
type reached struct {
	distance float64
	column   int32
}

// augment finds the cheapest way to serve a row that has nothing yet: through
// rows that give up their column for another one, to a column that is free or to
// a row that stays alone.
func (s *Solver) augment(start int32) {
	s.search++
	s.heap, s.settled = s.heap[:0], s.settled[:0]
	best, endColumn, endRow := s.p.alone[start], int32(None), start
	row, potential := start, 0.0 // what is subtracted from the row's costs
	for {
		if column, d := s.scan(row, potential, best); column != None {
			best, endColumn = d, column
		}
		next, ok := s.settle(best)
		if !ok {
			break
		}
		row = s.rowOf[next]
		held := s.edgeOf[row]
		potential = s.p.cost[held] - s.dual[next] - s.distance[next]
		if d := s.p.alone[row] - potential; d < best {
			best, endColumn, endRow = d, None, row
		}
	}
	for _, column := range s.settled {
		s.dual[column] += s.distance[column] - best
	}
	s.flip(start, endColumn, endRow)
}

// scan reaches columns by the edges of a row, if nearer than before and than
// best. It returns a free one that is now the nearest end, None if there is none.
func (s *Solver) scan(row int32, potential, best float64) (end int32, distance float64) {
	end = None
	from, to := s.p.edges(row)
	for e := from; e < to; e++ {
		column := s.p.column[e]
		d := s.p.cost[e] - s.dual[column] - potential
		if d >= best || s.mark[column] == 2*s.search+1 || s.mark[column] == 2*s.search && d >= s.distance[column] {
			continue
		}
		s.mark[column], s.distance[column], s.via[column], s.viaRow[column] = 2*s.search, d, e, row
		if s.rowOf[column] == None {
			best, end, distance = d, column, d
		} else {
			s.push(reached{d, column})
		}
	}
	return end, distance
}

// settle takes the nearest column that was reached, if it is nearer than best.
func (s *Solver) settle(best float64) (column int32, ok bool) {
	for len(s.heap) > 0 {
		r := s.pop()
		if r.distance >= best {
			return None, false
		}
		if s.mark[r.column] == 2*s.search+1 {
			continue // reached twice
		}
		s.mark[r.column] = 2*s.search + 1
		s.settled = append(s.settled, r.column)
		return r.column, true
	}
	return None, false
}

// flip gives the columns along the path to the rows that reach them.
func (s *Solver) flip(start, endColumn, endRow int32) {
	column := endColumn
	if column == None {
		if endRow == start {
			return
		}
		column = s.columnOf[endRow]
		s.columnOf[endRow], s.edgeOf[endRow] = None, None
	}
	for {
		row, lost := s.viaRow[column], s.columnOf[s.viaRow[column]]
		s.take(row, s.via[column])
		if row == start {
			return
		}
		column = lost
	}
}

// The heap has the nearest column on top; of equal ones the lowest, so that the
// result is the same on every run.

func (a reached) before(b reached) bool {
	return a.distance < b.distance || a.distance == b.distance && a.column < b.column
}

func (s *Solver) push(r reached) {
	s.heap = append(s.heap, r)
	h := s.heap
	i := len(h) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !r.before(h[parent]) {
			break
		}
		h[i] = h[parent]
		i = parent
	}
	h[i] = r
}

func (s *Solver) pop() reached {
	h := s.heap
	top, last := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	s.heap = h
	if len(h) == 0 {
		return top
	}
	i := 0
	for {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && h[child+1].before(h[child]) {
			child++
		}
		if !h[child].before(last) {
			break
		}
		h[i] = h[child]
		i = child
	}
	h[i] = last
	return top
}
