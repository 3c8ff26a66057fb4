package lake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/parquet-go/parquet-go"

	"github.com/starling-fleet/starling/history/row"
)

// pageBytes is about how large a page becomes before compression: small enough
// that the track of one vehicle does not need a whole file.
const pageBytes = 16 << 10

// bloomBits are the bits of the Bloom filter for each vehicle id: about 1 % of the
// files without a vehicle are read for it all the same.
const bloomBits = 10

// Sink writes batches. It is safe for concurrent use.
type Sink struct {
	dir string
	// step is called before each durable step; tests stop there.
	step func(name string) error
}

// NewSink writes to a directory, which is made if need be.
func NewSink(dir string) (*Sink, error) {
	if err := os.MkdirAll(filepath.Join(dir, manifestDir), 0o750); err != nil {
		return nil, fmt.Errorf("history lake: %w", err)
	}
	return &Sink{dir: dir, step: func(string) error { return nil }}, nil
}

// manifest commits a batch of several files.
type manifest struct {
	Partition int32          `json:"partition"`
	Epoch     int64          `json:"epoch"`
	First     int64          `json:"first_offset"`
	Last      int64          `json:"last_offset"`
	Files     []manifestFile `json:"files"`
}

type manifestFile struct {
	Path  string `json:"path"`
	Rows  int    `json:"rows"`
	Bytes int64  `json:"bytes"`
}

// Write writes a batch, whose rows are sorted as row.Dedup leaves them, durably and
// whole. The same batch may be written again. After an error, or a crash, readers
// see all of the batch or none of it: see the package comment.
func (s *Sink) Write(ctx context.Context, b *row.Batch) (row.Written, error) {
	byHour := map[int64][]row.Fix{}
	var hours []int64
	for _, r := range b.Rows {
		h := hourOf(r.DeviceTimeMS)
		if _, ok := byHour[h]; !ok {
			hours = append(hours, h)
		}
		byHour[h] = append(byHour[h], r)
	}
	name := nameOf(b, len(hours))
	m := manifest{Partition: b.Partition, Epoch: b.Epoch, First: b.First, Last: b.Last}
	var total int64
	for _, h := range hours {
		if err := ctx.Err(); err != nil {
			return row.Written{}, err
		}
		path := filepath.Join(hourDir(h), name.String()+".parquet")
		n, err := s.put(path, func(w io.Writer) error { return encodeFile(w, byHour[h]) })
		if err != nil {
			return row.Written{}, fmt.Errorf("history lake: write %s: %w", path, err)
		}
		m.Files = append(m.Files, manifestFile{filepath.ToSlash(path), len(byHour[h]), n})
		total += n
	}
	if len(hours) > 1 {
		path := filepath.Join(manifestDir, name.String()+".json")
		if _, err := s.put(path, func(w io.Writer) error { return json.NewEncoder(w).Encode(&m) }); err != nil {
			return row.Written{}, fmt.Errorf("history lake: write %s: %w", path, err)
		}
	}
	return row.Written{Files: len(hours), Bytes: total}, nil
}

// encodeFile writes the rows of one hour as a Parquet file. The same rows make the
// same bytes.
func encodeFile(w io.Writer, rows []row.Fix) error {
	geo, err := geoMetadata(rows)
	if err != nil {
		return err
	}
	pw := parquet.NewGenericWriter[columns](w,
		parquet.CreatedBy("starling", "1", "history"), // not the library's version: a batch written again has the same bytes
		parquet.Compression(&parquet.Zstd), parquet.PageBufferSize(pageBytes), parquet.DataPageStatistics(true),
		parquet.BloomFilters(parquet.SplitBlockFilter(bloomBits, "vehicle_id")),
		parquet.SortingWriterConfig(parquet.SortingColumns(parquet.Ascending("vehicle_id"), parquet.Ascending("device_time"))),
		parquet.DefaultEncodingFor(parquet.Int32, &parquet.DeltaBinaryPacked), parquet.DefaultEncodingFor(parquet.Int64, &parquet.DeltaBinaryPacked), parquet.SkipPageBounds("geometry"), parquet.KeyValueMetadata("geo", geo),
	)
	var e encoder
	for len(rows) > 0 {
		n := min(len(rows), rowsAtOnce)
		if _, err := pw.Write(e.encode(rows[:n])); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return pw.Close()
}

// put makes a file durable under its path, whole or not at all, and returns its
// size. A crash before the rename leaves a temporary file, one after it a whole file.
func (s *Sink) put(path string, write func(io.Writer) error) (size int64, err error) {
	path = filepath.Join(s.dir, path)
	dir, base := filepath.Split(path)
	if err := makeDirs(dir); err != nil {
		return 0, err
	}
	// What a crash has left of the same file. A writer that was replaced may still be
	// at it; its rename fails then.
	old, err := filepath.Glob(filepath.Join(dir, "."+base+".*.tmp"))
	if err != nil {
		return 0, err
	}
	for _, f := range old {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
	}
	if err := s.step("create"); err != nil {
		return 0, err
	}
	f, err := os.CreateTemp(dir, "."+base+".*.tmp")
	if err != nil {
		return 0, err
	}
	err = write(f)
	if err == nil {
		size, err = f.Seek(0, io.SeekCurrent)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = s.step("rename")
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return 0, errors.Join(err, removeIfThere(f.Name()))
	}
	if err := s.step("sync"); err != nil {
		return 0, err
	}
	return size, syncDir(dir)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// makeDirs makes a directory and its parents, each durable in its own parent.
func makeDirs(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if err := makeDirs(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return syncDir(parent)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
