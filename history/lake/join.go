package lake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"slices"
	"time"

	"github.com/starling-fleet/starling/history/row"
)

const (
	// joinReach is how far back hours are looked at whose files may be joined.
	joinReach = 7 * 24 * time.Hour
	// joinBytes is about how large a joined file becomes at most.
	joinBytes = 64 << 20
	// joinFiles are so many that they are joined whatever their sizes.
	joinFiles = 8
	// removeAfter is how long files stay that have been joined into another, for
	// those who read them: longer than a reading of one hour takes.
	removeAfter = 10 * time.Minute
)

// Join joins the small files of hours that ended a while before now, those of each
// partition that owns is true for, and returns how many were joined. Only whoever
// owns a partition may do it, and it may be owned by two at once for a while:
//
//   - The joined file has the range from the first of its parts to the last, so that
//     readers pass over the parts as soon as it is there, and it is put there as a
//     whole. A crash before that leaves nothing, one behind it leaves parts that the
//     next pass removes.
//   - Its range has no batch that is not in it: batches of a partition are written in
//     the order of their offsets, so that none comes into being between two of them. A
//     writer or joiner that was replaced may put a part or a smaller join there again,
//     which lies within the joined file and counts for nothing.
//   - Parts are removed a while after the joined file was made: nobody who has listed
//     them before that loses them.
func (s *Sink) Join(ctx context.Context, now time.Time, after time.Duration, owns func(partition int32) bool) (joined int, err error) {
	before := now.Add(-after)
	hours, err := hoursOf(ctx, s.files, before.Add(-joinReach).UnixMilli(), before.UnixMilli())
	if err != nil {
		return 0, err
	}
	for _, dir := range hours {
		end, err := time.Parse("dt=2006-01-02/hour=15", dir)
		if err != nil || end.Add(time.Hour).After(before) {
			continue
		}
		n, err := s.joinHour(ctx, dir, now, owns)
		joined += n
		if err != nil {
			return joined, fmt.Errorf("history lake: join files of %s: %w", dir, err)
		}
	}
	return joined, nil
}

func (s *Sink) joinHour(ctx context.Context, dir string, now time.Time, owns func(partition int32) bool) (joined int, err error) {
	all, err := committedIn(ctx, s.files, dir)
	if err != nil {
		return 0, err
	}
	all = slices.DeleteFunc(all, func(f batchFile) bool { return !owns(f.partition) })
	for _, f := range all {
		if f.covered {
			if err := s.removePart(ctx, dir, now, f, all); err != nil {
				return 0, err
			}
		}
	}
	all = slices.DeleteFunc(all, func(f batchFile) bool { return f.covered })
	for run := range runs(all) {
		if err := s.join(ctx, dir, run); err != nil {
			return joined, err
		}
		joined += len(run)
	}
	return joined, nil
}

// runs yields files that are to be joined, which follow each other in one partition
// and epoch.
func runs(all []batchFile) iter.Seq[[]batchFile] {
	slices.SortFunc(all, func(a, b batchFile) int {
		return cmp.Or(cmp.Compare(a.partition, b.partition), cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.first, b.first), cmp.Compare(a.last, b.last))
	})
	return func(yield func([]batchFile) bool) {
		for len(all) > 0 {
			n, bytes, largest := 0, int64(0), int64(0)
			for n < len(all) && all[n].partition == all[0].partition && all[n].epoch == all[0].epoch && (n == 0 || bytes+all[n].bytes <= joinBytes) {
				bytes += all[n].bytes
				largest = max(largest, all[n].bytes)
				n++
			}
			// A large file is not written anew for every small one that comes late.
			if n > 1 && (n >= joinFiles || 2*largest <= bytes) && !yield(all[:n]) {
				return
			}
			all = all[n:]
		}
	}
}

// join puts the joined file there.
func (s *Sink) join(ctx context.Context, dir string, parts []batchFile) error {
	name := batchName{parts[0].partition, parts[0].epoch, parts[0].first, parts[0].last, 1}
	var paths []string
	for _, p := range parts {
		name.last = max(name.last, p.last)
		paths = append(paths, path.Join(dir, p.String()+".parquet"))
	}
	_, err := s.files.put(ctx, path.Join(dir, name.String()+".parquet"), func(w io.Writer) error {
		m, err := openMerged(ctx, s.files, paths, (*columns).decode)
		if err != nil {
			return err
		}
		erased, err := s.erasures(ctx, name.partition) // now that Erase sees this file
		if err != nil {
			m.close()
			return err
		}
		return joinRows(newFileWriter(w), without(m.rows(ctx), erased))
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // somebody else has joined and removed a part: the next pass sees what there is
	}
	return err
}

// joinRows writes what row.Dedup leaves of the rows of each fix, which follow each other.
func joinRows(f *fileWriter, all iter.Seq2[row.Fix, error]) error {
	rows := make([]row.Fix, 0, rowsAtOnce) // of whole fixes, and then those of the present one
	begins := 0                            // where the present one does
	for fix, err := range all {
		if err != nil {
			return err
		}
		if begins < len(rows) && (fix.Vehicle != rows[begins].Vehicle || fix.DeviceTimeMS != rows[begins].DeviceTimeMS) {
			if rows = rows[:begins+len(row.Dedup(rows[begins:]))]; len(rows) >= rowsAtOnce {
				if err := f.write(rows); err != nil {
					return err
				}
				rows = rows[:0]
			}
			begins = len(rows)
		}
		rows = append(rows, fix)
	}
	if err := f.write(rows[:begins+len(row.Dedup(rows[begins:]))]); err != nil {
		return err
	}
	return f.close()
}

// removePart removes a file that is covered by one that has been there for a while.
func (s *Sink) removePart(ctx context.Context, dir string, now time.Time, part batchFile, all []batchFile) error {
	since := now
	for _, f := range all {
		if part.within(f.batchName) && f.modified.Before(since) {
			since = f.modified
		}
	}
	if now.Sub(since) < removeAfter {
		return nil
	}
	return s.files.remove(ctx, path.Join(dir, part.String()+".parquet"))
}
