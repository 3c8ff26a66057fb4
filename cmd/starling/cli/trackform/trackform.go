// Package trackform prints a vehicle's track in the forms that tools read.
package trackform

import (
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/starling-fleet/starling/cmd/starling/cli/past/picture"
	"github.com/starling-fleet/starling/history/row"
)

// Print prints the fixes of a vehicle. It fails with the first error of fixes.
type Print func(w io.Writer, vehicle string, fixes iter.Seq2[row.Fix, error]) error

// Forms are the forms by name.
func Forms() map[string]Print {
	return map[string]Print{"table": table, "csv": commaSeparated, "geojson": geoJSON, "gpx": gpx, "svg": svg}
}

var columns = []string{"device_time", "kind", "verdict", "raw_latitude", "raw_longitude", "latitude", "longitude", "speed_m_s", "heading_deg", "raw_speed_m_s", "raw_heading_deg", "accuracy_m"}

// cells are the values of columns; what is absent is empty.
func cells(f *row.Fix) []string {
	cell := func(bit row.Has, v int32, decimals int) string {
		if f.Has&bit == 0 {
			return ""
		}
		return decimal(v, decimals)
	}
	verdict := ""
	if f.Has&row.HasEstimate != 0 {
		verdict = strings.ToLower(strings.TrimPrefix(f.Verdict.String(), "VERDICT_"))
	}
	return []string{
		time.UnixMilli(f.DeviceTimeMS).UTC().Format("2006-01-02T15:04:05.000Z"), f.Kind.String(), verdict, decimal(f.Raw.LatE7, 7), decimal(f.Raw.LonE7, 7),
		cell(row.HasEstimate, f.Corrected.LatE7, 7), cell(row.HasEstimate, f.Corrected.LonE7, 7), cell(row.HasSpeed, f.SpeedCMPS, 2), cell(row.HasHeading, f.HeadingDDeg, 1),
		cell(row.HasRawSpeed, f.RawSpeedCMPS, 2), cell(row.HasRawHeading, f.RawHeadingDDeg, 1), cell(row.HasAccuracy, f.AccuracyDM, 1),
	}
}

// decimal prints a number of units of 10^-decimals.
func decimal(v int32, decimals int) string {
	unit := 1.0
	for range decimals {
		unit *= 10
	}
	return strconv.FormatFloat(float64(v)/unit, 'f', decimals, 64)
}

func table(w io.Writer, _ string, fixes iter.Seq2[row.Fix, error]) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if _, err := fmt.Fprintln(out, strings.ToUpper(strings.Join(columns, "\t"))); err != nil {
		return err
	}
	for f, err := range fixes {
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		values := cells(&f)
		for i := range values {
			if values[i] == "" {
				values[i] = "-"
			}
		}
		if _, err := fmt.Fprintln(out, strings.Join(values, "\t")); err != nil {
			return err
		}
	}
	return out.Flush()
}

func commaSeparated(w io.Writer, _ string, fixes iter.Seq2[row.Fix, error]) error {
	out := csv.NewWriter(w)
	if err := out.Write(columns); err != nil {
		return err
	}
	for f, err := range fixes {
		if err != nil {
			return err
		}
		if err := out.Write(cells(&f)); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// at is the position that maps show: the corrected one if there is one.
func at(f *row.Fix) row.Position {
	if f.Has&row.HasEstimate != 0 {
		return f.Corrected
	}
	return f.Raw
}

// geoJSON prints a FeatureCollection of a point for each fix, by RFC 7946.
func geoJSON(w io.Writer, vehicle string, fixes iter.Seq2[row.Fix, error]) error {
	if _, err := io.WriteString(w, `{"type":"FeatureCollection","features":[`); err != nil {
		return err
	}
	separator := "\n"
	for f, err := range fixes {
		if err != nil {
			return err
		}
		properties := map[string]string{"vehicle_id": vehicle}
		for i, v := range cells(&f) {
			if v != "" {
				properties[columns[i]] = v
			}
		}
		text, err := json.Marshal(properties)
		if err != nil {
			return err
		}
		p := at(&f)
		if _, err := fmt.Fprintf(w, `%s{"type":"Feature","geometry":{"type":"Point","coordinates":[%s,%s]},"properties":%s}`, separator, decimal(p.LonE7, 7), decimal(p.LatE7, 7), text); err != nil {
			return err
		}
		separator = ",\n"
	}
	_, err := io.WriteString(w, "\n]}\n")
	return err
}

// gpx prints a track by GPX 1.1.
func gpx(w io.Writer, vehicle string, fixes iter.Seq2[row.Fix, error]) error {
	var name strings.Builder
	if err := xml.EscapeText(&name, []byte(vehicle)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, xml.Header+`<gpx version="1.1" creator="starling" xmlns="http://www.topografix.com/GPX/1/1"><trk><name>%s</name><trkseg>`+"\n", name.String()); err != nil {
		return err
	}
	for f, err := range fixes {
		if err != nil {
			return err
		}
		p := at(&f)
		if _, err := fmt.Fprintf(w, `<trkpt lat="%s" lon="%s"><time>%s</time></trkpt>`+"\n", decimal(p.LatE7, 7), decimal(p.LonE7, 7), cells(&f)[0]); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, "</trkseg></trk></gpx>\n")
	return err
}

// svgPixels is the longer side of a drawn track.
const svgPixels = 800

// svg draws a track; it holds all of its positions.
func svg(w io.Writer, vehicle string, fixes iter.Seq2[row.Fix, error]) error {
	t := picture.Track{Title: vehicle, Width: svgPixels}
	place := func(p row.Position) picture.Point {
		return picture.Point{float64(p.LatE7) / 1e7, float64(p.LonE7) / 1e7}
	}
	for f, err := range fixes {
		if err != nil {
			return err
		}
		t.Dots = append(t.Dots, place(f.Raw))
		if f.Has&row.HasEstimate != 0 {
			t.Line = append(t.Line, place(f.Corrected))
		}
	}
	return picture.DrawTrack(w, &t)
}
