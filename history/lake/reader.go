package lake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
)

// Reader reads a lake, also while it is written. It is safe for concurrent use.
type Reader struct{ dir string }

var _ store.Store = (*Reader)(nil)

// Close implements store.Store. A reader holds nothing between its calls.
func (r *Reader) Close() error { return nil }

// NewReader reads the lake in a directory. It fails if there is none.
func NewReader(dir string) (*Reader, error) {
	if _, err := os.Stat(filepath.Join(dir, manifestDir)); err != nil {
		return nil, fmt.Errorf("%s is not a history lake: %w", dir, err)
	}
	return &Reader{dir}, nil
}

// Track implements store.Store. It holds the vehicle's rows of one hour in memory.
func (r *Reader) Track(ctx context.Context, q store.TrackQuery) iter.Seq2[row.Fix, error] {
	return func(yield func(row.Fix, error) bool) {
		hours, err := r.hours(q.FromMS, q.ToMS)
		if err != nil {
			yield(row.Fix{}, err)
			return
		}
		for _, h := range hours {
			rows, err := r.hour(ctx, h, q.Vehicle, q.FromMS, q.ToMS)
			if err != nil {
				yield(row.Fix{}, err)
				return
			}
			for _, fix := range row.Truth(rows) {
				if !yield(fix.Bare(), nil) {
					return
				}
			}
		}
	}
}

// Explain implements store.Store.
func (r *Reader) Explain(ctx context.Context, vehicle string, deviceTimeMS int64) (store.Explanation, error) {
	hours, err := r.hours(deviceTimeMS, deviceTimeMS+1)
	if err != nil || len(hours) == 0 {
		return store.Explanation{}, err
	}
	rows, err := r.hour(ctx, hours[0], vehicle, deviceTimeMS, deviceTimeMS+1)
	if err != nil {
		return store.Explanation{}, err
	}
	return store.ExplanationOf(rows), nil
}

// hours returns the directories of the hours that have fixes of [fromMS, toMS), by
// time.
func (r *Reader) hours(fromMS, toMS int64) ([]string, error) {
	days, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, day := range days {
		at, err := time.Parse("dt=2006-01-02", day.Name())
		if err != nil || at.AddDate(0, 0, 1).UnixMilli() <= fromMS || at.UnixMilli() >= toMS {
			continue
		}
		for hour := range int64(24) {
			startMS := at.UnixMilli() + hour*hourMS
			if startMS+hourMS <= fromMS || startMS >= toMS {
				continue
			}
			dir := hourDir(hourOf(startMS))
			if _, err := os.Stat(filepath.Join(r.dir, dir)); err == nil {
				out = append(out, dir)
			} else if !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	return out, nil
}

// hour returns the rows of a vehicle in the files of one hour.
func (r *Reader) hour(ctx context.Context, dir, vehicle string, fromMS, toMS int64) ([]row.Fix, error) {
	files, err := r.committed(dir)
	if err != nil {
		return nil, err
	}
	var rows []row.Fix
	for _, name := range files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		path := filepath.Join(dir, name.String()+".parquet")
		if rows, err = readVehicle(filepath.Join(r.dir, path), vehicle, rows); err != nil {
			return nil, fmt.Errorf("history lake: read %s: %w", path, err)
		}
	}
	rows = slices.DeleteFunc(rows, func(f row.Fix) bool { return f.DeviceTimeMS < fromMS || f.DeviceTimeMS >= toMS })
	return rows, nil
}

// committed returns the files of an hour that count: those of committed batches
// whose range is not within another's.
func (r *Reader) committed(dir string) ([]batchName, error) {
	entries, err := os.ReadDir(filepath.Join(r.dir, dir))
	if err != nil {
		return nil, err
	}
	var all []batchName
	for _, e := range entries {
		name, ok := parseName(e.Name())
		if !ok {
			continue
		}
		if name.files > 1 {
			_, err := os.Stat(filepath.Join(r.dir, manifestDir, name.String()+".json"))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
		}
		all = append(all, name)
	}
	return slices.DeleteFunc(slices.Clone(all), func(n batchName) bool { return slices.ContainsFunc(all, n.within) }), nil
}

// readVehicle appends the rows of a vehicle in one file.
func readVehicle(path, vehicle string, rows []row.Fix) ([]row.Fix, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	pf, err := parquet.OpenFile(f, info.Size())
	if err != nil {
		return nil, err
	}
	column, ok := pf.Schema().Lookup("vehicle_id")
	if !ok {
		return nil, errors.New("it has no column vehicle_id")
	}
	for _, group := range pf.RowGroups() {
		if rows, err = readGroup(group, column.ColumnIndex, vehicle, rows); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// readGroup appends the rows of a vehicle in one row group, which is sorted by
// vehicle: after the Bloom filter, only the pages that may have it are read.
func readGroup(group parquet.RowGroup, column int, vehicle string, rows []row.Fix) ([]row.Fix, error) {
	chunk := group.ColumnChunks()[column]
	value := parquet.ByteArrayValue([]byte(vehicle))
	if bloom := chunk.BloomFilter(); bloom != nil {
		if has, err := bloom.Check(value); err != nil || !has {
			return rows, err
		}
	}
	index, err := chunk.ColumnIndex()
	if err != nil {
		return nil, err
	}
	offsets, err := chunk.OffsetIndex()
	if err != nil {
		return nil, err
	}
	page := 0
	for page < index.NumPages() && strings.Compare(string(index.MaxValue(page).ByteArray()), vehicle) < 0 {
		page++
	}
	if page == index.NumPages() {
		return rows, nil
	}
	reader := parquet.NewGenericRowGroupReader[columns](group)
	defer func() { _ = reader.Close() }()
	if err := reader.SeekToRow(offsets.FirstRowIndex(page)); err != nil {
		return nil, err
	}
	return readRun(reader, vehicle, rows)
}

// readRun appends the rows of a vehicle, which follow each other, from where the
// reader stands.
func readRun(reader *parquet.GenericReader[columns], vehicle string, rows []row.Fix) ([]row.Fix, error) {
	buffer := make([]columns, 256)
	for {
		clear(buffer)
		n, err := reader.Read(buffer)
		for i := range buffer[:n] {
			switch strings.Compare(buffer[i].Vehicle, vehicle) {
			case 0:
				rows = append(rows, buffer[i].decode())
			case 1:
				return rows, nil
			}
		}
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
