package lake

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

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
	files  files
	erased erasureList
}

// NewSink writes to a directory, which is made if need be, or to s3://bucket/prefix,
// which it does not ask before it writes.
func NewSink(where string) (*Sink, error) {
	at, err := filesAt(where)
	if err != nil {
		return nil, fmt.Errorf("history lake: %w", err)
	}
	if dir, local := at.(*directory); local {
		if err := os.MkdirAll(dir.at(manifestDir), 0o750); err != nil {
			return nil, fmt.Errorf("history lake: %w", err)
		}
	}
	return &Sink{files: at}, nil
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
	erased, err := s.erasures(ctx, b.Partition)
	if err != nil {
		return row.Written{}, err
	}
	byHour := map[int64][]row.Fix{}
	var hours []int64
	for _, r := range erased.Without(b.Rows) {
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
		file := path.Join(hourDir(h), name.String()+".parquet")
		n, err := s.files.put(ctx, file, func(w io.Writer) error { return encodeFile(w, byHour[h]) })
		if err != nil {
			return row.Written{}, fmt.Errorf("history lake: write %s: %w", file, err)
		}
		m.Files = append(m.Files, manifestFile{file, len(byHour[h]), n})
		total += n
	}
	if len(hours) > 1 {
		file := path.Join(manifestDir, name.String()+".json")
		if _, err := s.files.put(ctx, file, func(w io.Writer) error { return json.NewEncoder(w).Encode(&m) }); err != nil {
			return row.Written{}, fmt.Errorf("history lake: write %s: %w", file, err)
		}
	}
	return row.Written{Files: len(hours), Bytes: total}, nil
}

// encodeFile writes the rows of one hour as a Parquet file. The same rows make the
// same bytes.
func encodeFile(w io.Writer, rows []row.Fix) error {
	f := newFileWriter(w)
	if err := f.write(rows); err != nil {
		return err
	}
	return f.close()
}

// fileWriter writes a Parquet file.
type fileWriter struct {
	parquet *parquet.GenericWriter[columns]
	encoder encoder
	bounds  bounds
}

func newFileWriter(w io.Writer) *fileWriter {
	return &fileWriter{bounds: noBounds, parquet: parquet.NewGenericWriter[columns](w,
		parquet.CreatedBy("starling", "1", "history"), // not the library's version: a batch written again has the same bytes
		parquet.Compression(&parquet.Zstd), parquet.PageBufferSize(pageBytes), parquet.DataPageStatistics(true),
		parquet.BloomFilters(parquet.SplitBlockFilter(bloomBits, "vehicle_id")),
		parquet.SortingWriterConfig(parquet.SortingColumns(parquet.Ascending("vehicle_id"), parquet.Ascending("device_time"))),
		parquet.DefaultEncodingFor(parquet.Int32, &parquet.DeltaBinaryPacked), parquet.DefaultEncodingFor(parquet.Int64, &parquet.DeltaBinaryPacked), parquet.SkipPageBounds("geometry"),
	)}
}

// write writes rows, which follow those before by vehicle and time.
func (f *fileWriter) write(rows []row.Fix) error {
	for i := range rows {
		f.bounds.add(rows[i].Shown())
	}
	for part := range slices.Chunk(rows, rowsAtOnce) {
		if _, err := f.parquet.Write(f.encoder.encode(part)); err != nil {
			return err
		}
	}
	return nil
}

func (f *fileWriter) close() error {
	geo, err := geoMetadata(f.bounds)
	if err != nil {
		return err
	}
	f.parquet.SetKeyValueMetadata("geo", geo)
	return f.parquet.Close()
}
