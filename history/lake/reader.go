package lake

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
)

// Reader reads a lake, also while it is written. It is safe for concurrent use.
type Reader struct{ files files }

var _ store.Store = (*Reader)(nil)

// Close implements store.Store. A reader holds nothing between its calls.
func (r *Reader) Close() error { return nil }

// NewReader reads the lake in a directory, or at s3://bucket/prefix, which it does not
// ask before it is asked itself. It fails if there is none in the directory.
func NewReader(where string) (*Reader, error) {
	at, err := filesAt(where)
	if err != nil {
		return nil, fmt.Errorf("history lake: %w", err)
	}
	if dir, local := at.(*directory); local {
		if _, err := os.Stat(dir.at(manifestDir)); err != nil {
			return nil, fmt.Errorf("%s is not a history lake: %w", where, err)
		}
	}
	return &Reader{at}, nil
}

// Track implements store.Store. It holds the vehicle's rows of one hour in memory.
func (r *Reader) Track(ctx context.Context, q store.TrackQuery) iter.Seq2[row.Fix, error] {
	return func(yield func(row.Fix, error) bool) {
		hours, err := r.hours(ctx, q.FromMS, q.ToMS)
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
	hours, err := r.hours(ctx, deviceTimeMS, deviceTimeMS+1)
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
func (r *Reader) hours(ctx context.Context, fromMS, toMS int64) ([]string, error) {
	return hoursOf(ctx, r.files, fromMS, toMS)
}

func hoursOf(ctx context.Context, at files, fromMS, toMS int64) ([]string, error) {
	days, err := at.list(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("history lake: list %s: %w", at, err)
	}
	if len(days) == 0 {
		return nil, fmt.Errorf("history lake: there is nothing at %s", at)
	}
	var out []string
	for _, day := range days {
		start, err := time.Parse("dt=2006-01-02", day.name)
		if err != nil || start.AddDate(0, 0, 1).UnixMilli() <= fromMS || start.UnixMilli() >= toMS {
			continue
		}
		there, err := at.list(ctx, day.name)
		if err != nil {
			return nil, fmt.Errorf("history lake: list %s: %w", day.name, err)
		}
		for hour := range int64(24) {
			startMS := start.UnixMilli() + hour*hourMS
			if startMS+hourMS <= fromMS || startMS >= toMS {
				continue
			}
			dir := hourDir(hourOf(startMS))
			if slices.ContainsFunc(there, func(e entry) bool { return e.dir && e.name == path.Base(dir) }) {
				out = append(out, dir)
			}
		}
	}
	return out, nil
}

// hour returns the rows of a vehicle in the files of one hour.
func (r *Reader) hour(ctx context.Context, dir, vehicle string, fromMS, toMS int64) ([]row.Fix, error) {
	var rows []row.Fix
	err := again(ctx, func() error {
		rows = rows[:0]
		files, err := r.committed(ctx, dir)
		if err != nil {
			return err
		}
		for _, name := range files {
			if err := ctx.Err(); err != nil {
				return err
			}
			file := path.Join(dir, name.String()+".parquet")
			if rows, err = r.readVehicle(ctx, file, vehicle, rows); err != nil {
				return fmt.Errorf("history lake: read %s: %w", file, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(f row.Fix) bool { return f.DeviceTimeMS < fromMS || f.DeviceTimeMS >= toMS })
	return rows, nil
}

// committed returns the files of an hour that count: those of committed batches
// whose range is not within another's.
func (r *Reader) committed(ctx context.Context, dir string) ([]batchName, error) {
	all, err := committedIn(ctx, r.files, dir)
	if err != nil {
		return nil, fmt.Errorf("history lake: list %s: %w", dir, err)
	}
	var names []batchName
	for _, f := range all {
		if !f.covered {
			names = append(names, f.batchName)
		}
	}
	return names, nil
}

// batchFile is a file of a committed batch.
type batchFile struct {
	batchName
	bytes    int64
	modified time.Time
	// covered is true if the file's range lies within another's, which has its rows.
	covered bool
}

// committedIn returns the files of committed batches in an hour's directory.
func committedIn(ctx context.Context, at files, dir string) ([]batchFile, error) {
	entries, err := at.list(ctx, dir)
	if err != nil {
		return nil, err
	}
	var all []batchFile
	for _, e := range entries {
		name, ok := parseName(e.name)
		if !ok {
			continue
		}
		if name.files > 1 {
			committed, err := at.has(ctx, path.Join(manifestDir, name.String()+".json"))
			if err != nil {
				return nil, err
			}
			if !committed {
				continue
			}
		}
		all = append(all, batchFile{batchName: name, bytes: e.bytes, modified: e.modified})
	}
	for i := range all {
		all[i].covered = slices.ContainsFunc(all, func(f batchFile) bool { return all[i].within(f.batchName) })
	}
	return all, nil
}

// again calls read once more, as often as a file that it has found listed was gone
// when it was opened: files of an hour that are joined are removed after a while.
func again(ctx context.Context, read func() error) error {
	const most = 3
	for n := 1; ; n++ {
		err := read()
		if n == most || !errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil {
			return err
		}
	}
}

// readVehicle appends the rows of a vehicle in one file.
func (r *Reader) readVehicle(ctx context.Context, file, vehicle string, rows []row.Fix) ([]row.Fix, error) {
	f, err := r.files.open(ctx, file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Most files do not have the vehicle: their indexes are not worth reading.
	pf, err := parquet.OpenFile(f, f.Size(), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
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
	first, n, err := runOf(chunk, offsets.FirstRowIndex(page), vehicle)
	if err != nil || n == 0 {
		return rows, err
	}
	return readRows(group, vehicle, first, n, rows)
}
