package lake

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"slices"

	"github.com/parquet-go/parquet-go"

	"github.com/starling-fleet/starling/history/row"
)

// place is the part of a row that questions about all vehicles need: when and where
// it was, how fast, and what makes it the truth or not.
type place struct {
	Vehicle      string `parquet:"vehicle_id,dict"`
	DeviceTimeMS int64  `parquet:"device_time,timestamp(millisecond)"`
	Kind         string `parquet:"kind,dict"`
	RawLatE7     int32  `parquet:"raw_latitude_e7"`
	RawLonE7     int32  `parquet:"raw_longitude_e7"`
	LatE7        *int32 `parquet:"latitude_e7,optional"`
	LonE7        *int32 `parquet:"longitude_e7,optional"`
	Speed        *int32 `parquet:"speed_cm_s,optional"`
	Epoch        int64  `parquet:"epoch"`
	SourceOffset int64  `parquet:"source_offset"`
}

func (p *place) fix() row.Fix {
	f := row.Fix{Vehicle: p.Vehicle, DeviceTimeMS: p.DeviceTimeMS, Epoch: p.Epoch, SourceOffset: p.SourceOffset, Raw: row.Position{LatE7: p.RawLatE7, LonE7: p.RawLonE7}}
	f.Kind, _ = row.ParseKind(p.Kind)
	take(&f, row.HasEstimate, &f.Corrected.LatE7, p.LatE7)
	take(&f, row.HasEstimate, &f.Corrected.LonE7, p.LonE7)
	take(&f, row.HasSpeed, &f.SpeedCMPS, p.Speed)
	return f
}

// scan yields the fixes of one hour, each once, with what place has of them: those of
// a partition by vehicle and time, one partition after the other. A vehicle is in one
// partition only. It holds some rows of each file of a partition in memory.
func (r *Reader) scan(ctx context.Context, dir string) iter.Seq2[row.Fix, error] {
	return func(yield func(row.Fix, error) bool) {
		found, err := r.committed(ctx, dir)
		if err != nil {
			yield(row.Fix{}, err)
			return
		}
		partitions := map[int32]bool{}
		for _, name := range found {
			partitions[name.partition] = true
		}
		for partition := range partitions {
			var m merged[place]
			err := again(ctx, func() (err error) {
				if found == nil { // a file was gone
					if found, err = r.committed(ctx, dir); err != nil {
						return err
					}
				}
				var paths []string
				for _, name := range found {
					if name.partition == partition {
						paths = append(paths, path.Join(dir, name.String()+".parquet"))
					}
				}
				if m, err = openMerged(ctx, r.files, paths, (*place).fix); err != nil {
					found = nil
				}
				return err
			})
			if err != nil {
				yield(row.Fix{}, err)
				return
			}
			var last row.Fix
			for fix, err := range m.rows(ctx) {
				if err != nil {
					yield(row.Fix{}, err)
					return
				}
				if !fix.Kind.Stands() || fix.Vehicle == last.Vehicle && fix.DeviceTimeMS == last.DeviceTimeMS {
					continue
				}
				if last = fix; !yield(fix, nil) {
					return
				}
			}
		}
	}
}

// cursor reads the rows of one file in order.
type cursor[T any] struct {
	path   string
	file   file
	reader *parquet.GenericReader[T]
	decode func(*T) row.Fix
	buffer []T
	at, n  int
	ended  bool
	fix    row.Fix // the present one
}

// openCursor returns nil for a file without rows.
func openCursor[T any](ctx context.Context, at files, path string, decode func(*T) row.Fix) (*cursor[T], error) {
	file, err := at.open(ctx, path)
	if err != nil {
		return nil, err
	}
	pf, err := parquet.OpenFile(file, file.Size())
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	c := &cursor[T]{path: path, file: file, reader: parquet.NewGenericReader[T](pf), decode: decode, buffer: make([]T, rowsAtOnce)}
	more, err := c.next()
	if err != nil || !more {
		c.close()
		return nil, err
	}
	return c, nil
}

// next moves to the next row; it returns false behind the last.
func (c *cursor[T]) next() (bool, error) {
	for c.at == c.n {
		if c.ended {
			return false, nil
		}
		clear(c.buffer)
		n, err := c.reader.Read(c.buffer)
		if c.ended = errors.Is(err, io.EOF); err != nil && !c.ended {
			return false, err
		}
		c.at, c.n = 0, n
	}
	c.fix = c.decode(&c.buffer[c.at])
	c.at++
	return true, nil
}

func (c *cursor[T]) close() { _ = errors.Join(c.reader.Close(), c.file.Close()) }

// merged is a heap of files by their present rows.
type merged[T any] []*cursor[T]

// openMerged opens files of one partition; rows closes them.
func openMerged[T any](ctx context.Context, at files, paths []string, decode func(*T) row.Fix) (merged[T], error) {
	var m merged[T]
	for _, path := range paths {
		c, err := openCursor(ctx, at, path, decode)
		if err != nil {
			m.close()
			return nil, fmt.Errorf("history lake: read %s: %w", path, err)
		}
		if c != nil {
			m = append(m, c)
		}
	}
	return m, nil
}

func (m merged[T]) close() {
	for _, c := range m {
		c.close()
	}
}

// rows yields the rows of the files by row.Compare, and closes the files.
func (m merged[T]) rows(ctx context.Context) iter.Seq2[row.Fix, error] {
	return func(yield func(row.Fix, error) bool) {
		defer func() { m.close() }()
		heap.Init(&m)
		for n := 0; len(m) > 0; n++ {
			if n%rowsAtOnce == 0 && ctx.Err() != nil {
				yield(row.Fix{}, ctx.Err())
				return
			}
			if !yield(m[0].fix, nil) {
				return
			}
			more, err := m[0].next()
			if err != nil {
				yield(row.Fix{}, fmt.Errorf("history lake: read %s: %w", m[0].path, err))
				return
			}
			if !more {
				m[0].close()
				heap.Pop(&m)
				continue
			}
			heap.Fix(&m, 0)
		}
	}
}

func (m merged[T]) Len() int           { return len(m) }
func (m merged[T]) Less(i, j int) bool { return row.Compare(m[i].fix, m[j].fix) < 0 }
func (m merged[T]) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }
func (m *merged[T]) Push(x any)        { *m = append(*m, x.(*cursor[T])) }
func (m *merged[T]) Pop() any {
	last := (*m)[len(*m)-1]
	*m = slices.Delete(*m, len(*m)-1, len(*m))
	return last
}
