package lake

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
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
		files, err := r.committed(dir)
		if err != nil {
			yield(row.Fix{}, err)
			return
		}
		byPartition := map[int32][]string{}
		for _, name := range files {
			byPartition[name.partition] = append(byPartition[name.partition], filepath.Join(dir, name.String()+".parquet"))
		}
		for _, paths := range byPartition {
			for fix, err := range r.merge(ctx, paths) {
				if !yield(fix, err) || err != nil {
					return
				}
			}
		}
	}
}

// merge yields the fixes of files of one partition in order, each once.
func (r *Reader) merge(ctx context.Context, paths []string) iter.Seq2[row.Fix, error] {
	return func(yield func(row.Fix, error) bool) {
		var m merged
		defer func() {
			for _, f := range m {
				f.close()
			}
		}()
		for _, path := range paths {
			f, err := openPlaces(filepath.Join(r.dir, path))
			if err == nil && f != nil {
				m = append(m, f)
			}
			if err != nil {
				yield(row.Fix{}, fmt.Errorf("history lake: read %s: %w", path, err))
				return
			}
		}
		heap.Init(&m)
		var last row.Fix
		for n := 0; len(m) > 0; n++ {
			if n%rowsAtOnce == 0 && ctx.Err() != nil {
				yield(row.Fix{}, ctx.Err())
				return
			}
			fix := m[0].fix
			if fix.Kind.Stands() && (fix.Vehicle != last.Vehicle || fix.DeviceTimeMS != last.DeviceTimeMS) {
				if !yield(fix, nil) {
					return
				}
				last = fix
			}
			more, err := m[0].next()
			if err != nil {
				yield(row.Fix{}, fmt.Errorf("history lake: read %s: %w", m[0].file.Name(), err))
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

// places reads the rows of one file in order.
type places struct {
	file   *os.File
	reader *parquet.GenericReader[place]
	buffer []place
	at, n  int
	ended  bool
	fix    row.Fix // the present one
}

// openPlaces returns nil for a file without rows.
func openPlaces(path string) (*places, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	pf, err := parquet.OpenFile(file, info.Size())
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	p := &places{file: file, reader: parquet.NewGenericReader[place](pf), buffer: make([]place, rowsAtOnce)}
	more, err := p.next()
	if err != nil || !more {
		p.close()
		return nil, err
	}
	return p, nil
}

// next moves to the next row; it returns false behind the last.
func (p *places) next() (bool, error) {
	for p.at == p.n {
		if p.ended {
			return false, nil
		}
		clear(p.buffer)
		n, err := p.reader.Read(p.buffer)
		if p.ended = errors.Is(err, io.EOF); err != nil && !p.ended {
			return false, err
		}
		p.at, p.n = 0, n
	}
	p.fix = p.buffer[p.at].fix()
	p.at++
	return true, nil
}

func (p *places) close() { _ = errors.Join(p.reader.Close(), p.file.Close()) }

// merged is a heap of files by their present rows.
type merged []*places

func (m merged) Len() int           { return len(m) }
func (m merged) Less(i, j int) bool { return row.Compare(m[i].fix, m[j].fix) < 0 }
func (m merged) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }
func (m *merged) Push(x any)        { *m = append(*m, x.(*places)) }
func (m *merged) Pop() any {
	last := (*m)[len(*m)-1]
	*m = slices.Delete(*m, len(*m)-1, len(*m))
	return last
}
