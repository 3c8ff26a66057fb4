package picture_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/cmd/starling/cli/past/picture"
)

// square is one of a degree, by its south-western corner.
func square(lat, lon, value float64) picture.Cell {
	return picture.Cell{Value: value, Outline: []picture.Point{{lat, lon}, {lat, lon + 1}, {lat + 1, lon + 1}, {lat + 1, lon}}}
}

func TestCellsAreWhereTheyBelong(t *testing.T) {
	for name, cells := range map[string][]picture.Cell{
		"on the equator":        {square(0, 10, 1), square(0, 12, 100)},
		"over the antimeridian": {square(0, 178.5, 1), square(0, -179.5, 100)},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			m := &picture.Map{Cells: cells, Width: 300, Unit: "fixes", Log: true}
			require.NoError(t, picture.Forms()[".png"](&b, m))
			img, err := png.Decode(&b)
			require.NoError(t, err)
			// The squares have a third of the width each, white in the middle; dark is
			// purple, bright is yellow.
			y := img.Bounds().Dy() / 2
			at := func(x int) [3]uint32 {
				r, g, b, _ := img.At(x, y).RGBA()
				return [3]uint32{r >> 8, g >> 8, b >> 8}
			}
			require.Equal(t, [3]uint32{0x44, 0x01, 0x54}, at(60))
			require.Equal(t, [3]uint32{0xff, 0xff, 0xff}, at(150))
			require.Equal(t, [3]uint32{0xfd, 0xe7, 0x25}, at(240))
			require.Less(t, img.Bounds().Dy(), 130, "as high as one of them")
			require.Equal(t, "1 (dark) to 100 (bright) fixes, logarithmic", m.Legend())
		})
	}
}

// Whatever is in a title, what is drawn is XML.
func TestSVGIsXML(t *testing.T) {
	for _, draw := range []func(io.Writer) error{
		func(w io.Writer) error {
			return picture.Forms()[".svg"](w, &picture.Map{Cells: []picture.Cell{square(48, 16, 3)}, Width: 100, Unit: "<&\">"})
		},
		func(w io.Writer) error {
			return picture.DrawTrack(w, &picture.Track{Title: "<a>", Width: 100, Dots: []picture.Point{{1, 1}}})
		},
		func(w io.Writer) error { return picture.DrawTrack(w, &picture.Track{Title: "empty", Width: 100}) },
	} {
		var b bytes.Buffer
		require.NoError(t, draw(&b))
		elements := 0
		for d := xml.NewDecoder(strings.NewReader(b.String())); ; elements++ {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err, b.String())
		}
		require.Positive(t, elements)
	}
}
