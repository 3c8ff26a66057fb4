// Package filtereval measures gpsfilter on drives with ground truth, clean and
// with injected faults, by kind of stream, and prints the table of what it must
// show, the share of streams that it harms, and what a fit of its constants is
// worth on drives that the fit has not seen.
//
// All errors are horizontal distances between the position right after a row
// and the truth interpolated at the row's time. Everything is a function of the
// files and fixed seeds, so two runs print the same.
package filtereval

import (
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/starling-fleet/starling/gpsfilter"
)

// maxTruthGapMS is the longest gap between two truth points across which the
// truth is interpolated.
const maxTruthGapMS = 1500

// TruthPoint is one point of a reference trajectory.
type TruthPoint struct {
	TimeMS         int64
	LatDeg, LonDeg float64
}

// Stream is one device's fixes and the reference trajectory of its drive.
type Stream struct {
	// Name is the file's name without its endings.
	Name string
	// Kind is the collection and the device, such as "gsdc_chipset" or
	// "whu_HP30". Kinds weigh alike, however many streams they have.
	Kind string
	// Fold is the city, day and device. Streams of one fold are left out of a
	// fit together.
	Fold string
	// Fixes are in device order, Truth by time.
	Fixes []gpsfilter.Fix
	Truth []TruthPoint
}

// LoadDir reads every NAME.csv.gz with its NAME.truth.csv.gz in the folders, by
// folder and name.
func LoadDir(dirs ...string) ([]Stream, error) {
	var streams []Stream
	for _, dir := range dirs {
		paths, err := filepath.Glob(filepath.Join(dir, "*.truth.csv.gz"))
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", dir, err)
		}
		if len(paths) == 0 {
			return nil, fmt.Errorf("no *.truth.csv.gz in %s", dir)
		}
		sort.Strings(paths)
		for _, p := range paths {
			s, err := loadFiles(strings.TrimSuffix(p, ".truth.csv.gz")+".csv.gz", p)
			if err != nil {
				return nil, err
			}
			streams = append(streams, s)
		}
	}
	return streams, nil
}

func loadFiles(fixesPath, truthPath string) (s Stream, err error) {
	err = withFile(fixesPath, func(fixes io.Reader) error {
		return withFile(truthPath, func(truth io.Reader) error {
			name := filepath.Base(fixesPath)
			s, err = LoadStream(strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), ".csv"), fixes, truth)
			return err
		})
	})
	return s, err
}

// withFile calls fn with the file's content, unpacked if its name ends in .gz.
func withFile(path string, fn func(io.Reader) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return fmt.Errorf("unpack %s: %w", path, err)
		}
	}
	return fn(r)
}

// LoadDrive reads one stream from fixes and its truth from a file, which is
// unpacked if its name ends in .gz.
func LoadDrive(name string, fixes io.Reader, truthPath string) (s Stream, err error) {
	err = withFile(truthPath, func(truth io.Reader) error {
		s, err = LoadStream(name, fixes, truth)
		return err
	})
	return s, err
}

// LoadStream reads one stream of fixes and its truth, both CSV. The name gives
// the kind and the fold.
func LoadStream(name string, fixes, truth io.Reader) (Stream, error) {
	s := Stream{Name: name}
	s.Kind, s.Fold = kindAndFold(name)
	err := eachRow(fixes, []string{"unix_ms", "lat", "lon", "accuracy_m", "speed_mps", "heading_deg"}, func(v []float64) {
		f := gpsfilter.Fix{TimeMS: int64(v[0]), LatDeg: v[1], LonDeg: v[2]}
		for i, field := range []gpsfilter.Fields{gpsfilter.FieldAccuracy, gpsfilter.FieldSpeed, gpsfilter.FieldHeading} {
			if x := v[3+i]; !math.IsNaN(x) {
				f.Has |= field
				*[]*float32{&f.AccuracyM, &f.SpeedMPS, &f.HeadingDeg}[i] = float32(x)
			}
		}
		s.Fixes = append(s.Fixes, f)
	})
	if err != nil {
		return Stream{}, fmt.Errorf("fixes of %s: %w", name, err)
	}
	err = eachRow(truth, []string{"unix_ms", "lat", "lon"}, func(v []float64) {
		s.Truth = append(s.Truth, TruthPoint{int64(v[0]), v[1], v[2]})
	})
	if err != nil {
		return Stream{}, fmt.Errorf("truth of %s: %w", name, err)
	}
	sort.SliceStable(s.Truth, func(i, j int) bool { return s.Truth[i].TimeMS < s.Truth[j].TimeMS })
	return s, nil
}

// kindAndFold reads COLLECTION_DAY_PLACE_DEVICE and its variants. A stretch such
// as WH-3-02 counts by its city.
func kindAndFold(name string) (kind, fold string) {
	parts := strings.Split(name, "_")
	last := parts[len(parts)-1]
	switch {
	case parts[0] == "whu" && len(parts) == 4:
		city, _, _ := strings.Cut(parts[2], "-")
		return "whu_" + last, city + "_" + parts[1] + "_" + last
	case parts[0] == "urbannavhk" && len(parts) == 4:
		return "urbannavhk_" + last, "HK_" + parts[1] + "_" + last
	case parts[0] == "gsdc" && len(parts) >= 3:
		return "gsdc_" + parts[1], parts[2] + "_" + parts[1]
	}
	return parts[0], name
}

// eachRow calls fn with the named columns of each row; an empty cell is NaN.
func eachRow(r io.Reader, columns []string, fn func([]float64)) error {
	cr := csv.NewReader(r)
	cr.ReuseRecord = true
	header, err := cr.Read()
	if err != nil {
		return fmt.Errorf("read header: %w", err)
	}
	at := make([]int, len(columns))
	for i, c := range columns {
		at[i] = -1
		for j, h := range header {
			if h == c {
				at[i] = j
			}
		}
		if at[i] < 0 && i < 3 {
			return fmt.Errorf("no column %q", c)
		}
	}
	values := make([]float64, len(columns))
	for {
		rec, err := cr.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read rows: %w", err)
		}
		for i, j := range at {
			values[i] = math.NaN()
			if j < 0 || rec[j] == "" {
				continue
			}
			if values[i], err = strconv.ParseFloat(rec[j], 64); err != nil {
				line, _ := cr.FieldPos(j)
				return fmt.Errorf("line %d: %s: %w", line, columns[i], err)
			}
		}
		fn(values)
	}
}

// Every returns the fixes that are at least period after the one kept before.
// Times may fall short by 5 %, so that a jittering clock keeps its rate.
func Every(fixes []gpsfilter.Fix, periodMS int64) []gpsfilter.Fix {
	out := make([]gpsfilter.Fix, 0, len(fixes))
	for _, f := range fixes {
		if len(out) == 0 || f.TimeMS-out[len(out)-1].TimeMS >= periodMS-periodMS/20 {
			out = append(out, f)
		}
	}
	return out
}
