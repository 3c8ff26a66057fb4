// Package filtercsv runs gpsfilter over rows of CSV: one row out for each row
// in, with the vehicle's live position right after that row.
package filtercsv

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/starling-fleet/starling/gpsfilter"
)

// DefaultWindow is the reorder window when none is set.
const DefaultWindow = 30 * time.Second

// Options is how rows are filtered.
type Options struct {
	// Filter does the work; nil means one with the default configuration.
	Filter *gpsfilter.Filter
	// Window is how far, in device time, a row may be behind its vehicle's
	// newest and still count; 0 means DefaultWindow.
	Window time.Duration
	// Errors gets every refused row with line, column and rule; nil
	// means nobody.
	Errors io.Writer
}

// Summary counts what became of the rows.
type Summary struct {
	Rows, Refused, Duplicate, Conflict, Late int
}

// Verdicts of rows that the filter did not judge.
const (
	VerdictRefused   = "refused"
	VerdictDuplicate = "duplicate"
	VerdictConflict  = "conflict"
	VerdictLate      = "late"
)

// Header is the output's header.
var Header = []string{
	"vehicle_id", "unix_ms", "live_unix_ms", "live_lat", "live_lon", "live_speed_mps", "live_heading_deg",
	"live_var_east_m2", "live_cov_east_north_m2", "live_var_north_m2", "verdict", "normalised_distance",
	"display_lat", "display_lon",
}

// Run reads CSV from r and writes one row to w for every row that it reads, in
// the same order. The input's header names its columns, of which vehicle_id,
// unix_ms, lat and lon must be there; accuracy_m, speed_mps and heading_deg may
// be, and an empty cell was not reported. Rows are in order of arrival and
// vehicles may be interleaved.
//
// A row whose device time its vehicle has shown before changes nothing, nor
// does one that is further than the window behind the vehicle's newest; any
// other row counts as if it had come in order. A row that breaks a rule is
// written with the verdict "refused" and reported to Options.Errors. Cells that are
// not known are empty.
//
// Run fails when the header lacks a column, or when reading or writing fails.
func Run(r io.Reader, w io.Writer, opts Options) (Summary, error) {
	if opts.Window == 0 {
		opts.Window = DefaultWindow
	}
	if opts.Errors == nil {
		opts.Errors = io.Discard
	}
	if opts.Filter == nil {
		f, err := gpsfilter.New(gpsfilter.DefaultConfig())
		if err != nil {
			return Summary{}, fmt.Errorf("make filter: %w", err)
		}
		opts.Filter = f
	}
	in := csv.NewReader(r)
	in.ReuseRecord = true
	in.FieldsPerRecord = -1
	header, err := in.Read()
	if err != nil {
		return Summary{}, fmt.Errorf("read header: %w", err)
	}
	cols, err := findColumns(header)
	if err != nil {
		return Summary{}, err
	}
	buf := bufio.NewWriterSize(w, 1<<16)
	run := &run{opts: opts, cols: cols, in: in, out: csv.NewWriter(buf), vehicles: map[string]*vehicle{}}
	if err := run.out.Write(Header); err != nil {
		return Summary{}, fmt.Errorf("write header: %w", err)
	}
	if err := run.rows(); err != nil {
		return run.sum, err
	}
	run.out.Flush()
	if err := errors.Join(run.out.Error(), buf.Flush()); err != nil {
		return run.sum, fmt.Errorf("write rows: %w", err)
	}
	return run.sum, nil
}

type run struct {
	opts     Options
	cols     columns
	in       *csv.Reader
	out      *csv.Writer
	vehicles map[string]*vehicle
	sum      Summary
	cells    [14]string
}

func (r *run) rows() error {
	for {
		rec, err := r.in.Read()
		var parse *csv.ParseError
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &parse):
			_, _ = fmt.Fprintf(r.opts.Errors, "line %d: %v\n", parse.StartLine, parse.Err)
			rec = nil
		case err != nil:
			return fmt.Errorf("read rows: %w", err)
		}
		r.sum.Rows++
		if err := r.row(rec, parse != nil); err != nil {
			return fmt.Errorf("write rows: %w", err)
		}
	}
}

func (r *run) row(rec []string, unreadable bool) error {
	id, fix, fault := r.cols.parse(rec)
	v := r.vehicles[id]
	verdict, distance := VerdictRefused, 0.0
	switch {
	case unreadable:
		r.sum.Refused++
	case fault != nil:
		line, _ := r.in.FieldPos(0)
		_, _ = fmt.Fprintf(r.opts.Errors, "line %d: %v\n", line, fault)
		r.sum.Refused++
	default:
		if v == nil {
			v = &vehicle{}
			r.vehicles[id] = v
		}
		verdict, distance = v.take(r.opts.Filter, fix, r.opts.Window.Milliseconds())
		r.count(verdict)
	}
	clear(r.cells[:])
	r.cells[0] = id
	if i := r.cols.index[colTime]; i < len(rec) {
		r.cells[1] = rec[i]
	}
	if v != nil {
		r.live(&v.live)
	}
	r.cells[10] = verdict
	if distance > 0 {
		r.cells[11] = strconv.FormatFloat(distance, 'f', 2, 64)
	}
	return r.out.Write(r.cells[:])
}

func (r *run) count(verdict string) {
	switch verdict {
	case VerdictDuplicate:
		r.sum.Duplicate++
	case VerdictConflict:
		r.sum.Conflict++
	case VerdictLate:
		r.sum.Late++
	}
}

func (r *run) live(e *gpsfilter.Estimate) {
	r.cells[2] = strconv.FormatInt(e.TimeMS, 10)
	r.cells[3] = strconv.FormatFloat(e.LatDeg, 'f', 9, 64)
	r.cells[4] = strconv.FormatFloat(e.LonDeg, 'f', 9, 64)
	if e.HasSpeed {
		r.cells[5] = strconv.FormatFloat(e.SpeedMPS, 'f', 3, 64)
	}
	if e.HasHeading {
		r.cells[6] = formatHeading(e.HeadingDeg)
	}
	r.cells[7] = strconv.FormatFloat(e.VarEastM2, 'g', 7, 64)
	r.cells[8] = strconv.FormatFloat(e.CovEastNorthM2, 'g', 7, 64)
	r.cells[9] = strconv.FormatFloat(e.VarNorthM2, 'g', 7, 64)
	r.cells[12] = strconv.FormatFloat(e.DisplayLatDeg, 'f', 9, 64)
	r.cells[13] = strconv.FormatFloat(e.DisplayLonDeg, 'f', 9, 64)
}

// formatHeading writes a heading with three decimals; one that would round up to
// 360 is 0.
func formatHeading(deg float64) string {
	if s := strconv.FormatFloat(deg, 'f', 3, 64); s != "360.000" {
		return s
	}
	return "0.000"
}
