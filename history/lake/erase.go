package lake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/starling-fleet/starling/history/row"
)

// erasureDir has a file for each erasure that was asked for, which is never changed
// again, and one for each that was carried out.
const erasureDir = "_erasures"

// erasureRecord is the content of an erasure's files; the last three fields are in the
// one that says that it was carried out.
type erasureRecord struct {
	Vehicle  string     `json:"vehicle_id"`
	UntilMS  int64      `json:"until_ms"`
	Rows     int64      `json:"rows,omitempty"`
	Files    int        `json:"files,omitempty"`
	ErasedAt *time.Time `json:"erased_at,omitempty"`
}

func erasurePrefix(partition int32) string { return fmt.Sprintf("erasure-%d-", partition) }

// erasureList is what is known of the erasures on record, by the names of their files.
type erasureList struct {
	mu    sync.Mutex
	known map[string]erasureRecord
}

// Erase puts an erasure on record, so that every later Write and Join leaves the fixes
// out, and writes the files that have any anew, under their names. Only whoever owns the
// partition may do it. It may be repeated; a crash leaves the record, and some files as
// they were.
//
// A temporary file of the partition is what a crash has left, or of a writer that has
// been replaced, or that is at work and may not know the erasure: it is removed, and
// the rename of who is still at it fails.
func (s *Sink) Erase(ctx context.Context, e row.Erasure) (row.Erased, error) {
	record := erasureRecord{Vehicle: e.Vehicle, UntilMS: e.UntilMS}
	name := fmt.Sprintf("%s%d-%d.json", erasurePrefix(e.Partition), e.Epoch, e.Offset)
	if err := s.putErasure(ctx, name, record); err != nil {
		return row.Erased{}, err
	}
	hours, err := s.hoursBefore(ctx, e.UntilMS)
	if err != nil {
		return row.Erased{}, err
	}
	var done row.Erased
	for _, dir := range hours {
		if err := s.eraseHour(ctx, dir, e.Partition, row.Erasures{e.Vehicle: e.UntilMS}, &done); err != nil {
			return row.Erased{}, fmt.Errorf("history lake: erase in %s: %w", dir, err)
		}
	}
	now := time.Now().UTC()
	record.Rows, record.Files, record.ErasedAt = done.Rows, done.Files, &now
	return done, s.putErasure(ctx, "done-"+name, record)
}

func (s *Sink) hoursBefore(ctx context.Context, untilMS int64) ([]string, error) {
	return hoursOf(ctx, s.files, math.MinInt64/2, untilMS)
}

func (s *Sink) putErasure(ctx context.Context, name string, r erasureRecord) error {
	if _, err := s.files.put(ctx, path.Join(erasureDir, name), func(w io.Writer) error { return json.NewEncoder(w).Encode(r) }); err != nil {
		return fmt.Errorf("history lake: write %s: %w", name, err)
	}
	return nil
}

func (s *Sink) eraseHour(ctx context.Context, dir string, partition int32, erasures row.Erasures, done *row.Erased) error {
	entries, err := s.files.list(ctx, dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		file := path.Join(dir, entry.name)
		if strings.HasPrefix(entry.name, fmt.Sprintf(".part-%d-", partition)) && strings.HasSuffix(entry.name, ".tmp") {
			if err := s.files.remove(ctx, file); err != nil {
				return err
			}
			continue
		}
		if name, ok := parseName(entry.name); !ok || name.partition != partition {
			continue
		}
		n, err := s.eraseFile(ctx, file, erasures)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return fmt.Errorf("%s: %w", entry.name, err)
		}
		if n > 0 {
			done.Rows += n
			done.Files++
		}
	}
	return ctx.Err()
}

// eraseFile writes a file anew without the rows that are erased, if it has any, or
// removes it if it has no others, and returns how many they were.
func (s *Sink) eraseFile(ctx context.Context, file string, erasures row.Erasures) (erased int64, err error) {
	r := Reader{s.files}
	for vehicle := range erasures {
		rows, err := r.readVehicle(ctx, file, vehicle, nil)
		if err != nil {
			return 0, err
		}
		for i := range rows {
			if erasures.Covers(&rows[i]) {
				erased++
			}
		}
	}
	if erased == 0 {
		return 0, nil
	}
	all, err := s.countRows(ctx, file)
	if err != nil {
		return 0, err
	}
	if erased == all {
		return erased, s.files.remove(ctx, file)
	}
	_, err = s.files.put(ctx, file, func(w io.Writer) error {
		m, err := openMerged(ctx, s.files, []string{file}, (*columns).decode)
		if err != nil {
			return err
		}
		return joinRows(newFileWriter(w), without(m.rows(ctx), erasures))
	})
	return erased, err
}

func (s *Sink) countRows(ctx context.Context, file string) (n int64, err error) {
	f, err := s.files.open(ctx, file)
	if err != nil {
		return 0, err
	}
	pf, err := parquet.OpenFile(f, f.Size())
	if err == nil {
		n = pf.NumRows()
	}
	return n, errors.Join(err, f.Close())
}

// without yields the rows that are not erased.
func without(rows iter.Seq2[row.Fix, error], erasures row.Erasures) iter.Seq2[row.Fix, error] {
	return func(yield func(row.Fix, error) bool) {
		for f, err := range rows {
			if err == nil && erasures.Covers(&f) {
				continue
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

// erasures returns what is erased of the vehicles of a partition.
func (s *Sink) erasures(ctx context.Context, partition int32) (row.Erasures, error) {
	entries, err := s.files.list(ctx, erasureDir)
	if err != nil {
		return nil, fmt.Errorf("history lake: list erasures: %w", err)
	}
	list := &s.erased
	list.mu.Lock()
	defer list.mu.Unlock()
	if list.known == nil {
		list.known = map[string]erasureRecord{}
	}
	out := row.Erasures{}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.name, erasurePrefix(partition)) || !strings.HasSuffix(entry.name, ".json") {
			continue
		}
		r, ok := list.known[entry.name]
		if !ok {
			if r, err = s.readErasure(ctx, entry.name); err != nil {
				return nil, fmt.Errorf("history lake: read erasure %s: %w", entry.name, err)
			}
			list.known[entry.name] = r
		}
		out.Add(r.Vehicle, r.UntilMS)
	}
	return out, nil
}

func (s *Sink) readErasure(ctx context.Context, name string) (r erasureRecord, err error) {
	f, err := s.files.open(ctx, path.Join(erasureDir, name))
	if err != nil {
		return r, err
	}
	text, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err = errors.Join(err, f.Close()); err != nil {
		return r, err
	}
	return r, json.Unmarshal(text, &r)
}
