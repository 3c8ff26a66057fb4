package gpsfilter_test

import (
	"math"
	"testing"

	"github.com/starling-fleet/starling/gpsfilter"
)

// drive is a loop through a town at 1 Hz with speed and heading.
func drive(n int) []gpsfilter.Fix {
	fixes := make([]gpsfilter.Fix, n)
	e, nn, h := 0.0, 0.0, 0.0
	for i := range fixes {
		v := 10 + 5*math.Sin(float64(i)/20)
		h = math.Mod(h+3*math.Sin(float64(i)/33)+360, 360)
		e += v * math.Sin(h*math.Pi/180)
		nn += v * math.Cos(h*math.Pi/180)
		fixes[i] = gpsfilter.Fix{
			TimeMS: int64(i+1) * 1000, LatDeg: 48 + (nn+3*math.Sin(float64(i*i)))/111195, LonDeg: 11 + (e+3*math.Cos(float64(i*i)))/74400,
			AccuracyM: 5, SpeedMPS: float32(v), HeadingDeg: float32(h),
			Has: gpsfilter.FieldAccuracy | gpsfilter.FieldSpeed | gpsfilter.FieldHeading,
		}
	}
	return fixes
}

func BenchmarkStep(b *testing.B) {
	for _, c := range []struct {
		name string
		has  gpsfilter.Fields
	}{
		{"velocity", gpsfilter.FieldAccuracy | gpsfilter.FieldSpeed | gpsfilter.FieldHeading},
		{"speed", gpsfilter.FieldAccuracy | gpsfilter.FieldSpeed},
		{"position", 0},
	} {
		b.Run(c.name, func(b *testing.B) {
			f, err := gpsfilter.New(gpsfilter.DefaultConfig())
			if err != nil {
				b.Fatal(err)
			}
			fixes := drive(4096)
			for i := range fixes {
				fixes[i].Has = c.has
			}
			var s gpsfilter.State
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%len(fixes) == 0 {
					s = gpsfilter.State{}
				}
				f.Step(&s, fixes[i%len(fixes)])
			}
		})
	}
}
