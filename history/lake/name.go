// Package lake keeps rows of history as Parquet files in a directory tree that
// analysts' tools read by themselves.
//
//	dt=2026-03-01/hour=07/part-<partition>-<epoch>-<first>-<last>[-of<files>].parquet
//	_manifests/part-<partition>-<epoch>-<first>-<last>-of<files>.json
//
// The day and the hour are UTC of device time; partition, epoch and offsets are
// those of the batch in `tracks`. A batch that falls into one hour is one file, and
// its rename commits it. A batch of several files, whose names end in how many they
// are, is committed by its manifest, which comes last.
//
// A file comes into being by a rename of a temporary one that has been synced, so it
// is whole whenever it is there, and writing a batch again makes the same bytes under
// the same names. A crash leaves at most temporary files, which the next write of the
// same batch deletes, and files of a batch without a manifest, which Reader passes
// over and the next write replaces.
package lake

import (
	"fmt"
	"path"
	"regexp"
	"strconv"
	"time"

	"github.com/starling-fleet/starling/history/row"
)

const (
	manifestDir = "_manifests"
	hourMS      = int64(time.Hour / time.Millisecond)
)

// batchName is the batch that a file's name states.
type batchName struct {
	partition   int32
	epoch       int64
	first, last int64
	files       int
}

func nameOf(b *row.Batch, files int) batchName {
	return batchName{b.Partition, b.Epoch, b.First, b.Last, files}
}

// String is the name without its extension.
func (n batchName) String() string {
	s := fmt.Sprintf("part-%d-%d-%d-%d", n.partition, n.epoch, n.first, n.last)
	if n.files > 1 {
		s += fmt.Sprintf("-of%d", n.files)
	}
	return s
}

// within returns whether everything in n is in other too, which is another batch.
func (n batchName) within(other batchName) bool {
	return n != other && n.partition == other.partition && n.epoch == other.epoch && other.first <= n.first && n.last <= other.last &&
		(n.last-n.first < other.last-other.first || n.files > other.files)
}

var namePattern = regexp.MustCompile(`^part-(\d+)-(\d+)-(\d+)-(\d+)(?:-of(\d+))?\.parquet$`)

// parseName returns false for a file that is not the lake's.
func parseName(file string) (batchName, bool) {
	m := namePattern.FindStringSubmatch(file)
	if m == nil {
		return batchName{}, false
	}
	var nums [5]int64
	nums[4] = 1
	for i, s := range m[1:] {
		if s == "" {
			continue
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return batchName{}, false
		}
		nums[i] = n
	}
	n := batchName{int32(nums[0]), nums[1], nums[2], nums[3], int(nums[4])}
	return n, n.String()+".parquet" == file
}

// hourDir is the directory of an hour, from the root.
func hourDir(hour int64) string {
	t := time.UnixMilli(hour * hourMS).UTC()
	return path.Join(dayDir(t), fmt.Sprintf("hour=%02d", t.Hour()))
}

func dayDir(t time.Time) string { return t.UTC().Format("dt=2006-01-02") }

// hourOf is the hour since the Unix epoch that a device time falls into.
func hourOf(deviceTimeMS int64) int64 { return row.Period(deviceTimeMS, hourMS) }
