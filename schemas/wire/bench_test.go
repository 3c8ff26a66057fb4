package wire_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// The benchmarks put the flat structs beside the generated code, which is what
// a program without this package would use.

func BenchmarkDecodeRequest(b *testing.B) {
	for _, fixes := range []int{1, 5, 50} {
		data := sampleRequest(fixes).Append(nil)
		b.Run(fmt.Sprintf("wire/fixes=%d", fixes), func(b *testing.B) {
			var r wire.StreamRequest
			b.ReportAllocs()
			for b.Loop() {
				if err := r.Unmarshal(data); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("generated/fixes=%d", fixes), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var r starlingv1.StreamReportsRequest
				if err := proto.Unmarshal(data, &r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncodeRequest(b *testing.B) {
	for _, fixes := range []int{1, 5, 50} {
		r := sampleRequest(fixes)
		b.Run(fmt.Sprintf("wire/fixes=%d", fixes), func(b *testing.B) {
			var buf []byte
			b.ReportAllocs()
			for b.Loop() {
				buf = r.Append(buf[:0])
			}
		})
		b.Run(fmt.Sprintf("generated/fixes=%d", fixes), func(b *testing.B) {
			var buf []byte
			pb := r.ToProto()
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if buf, err = (proto.MarshalOptions{}).MarshalAppend(buf[:0], pb); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecodeTrack(b *testing.B) {
	data := sampleTrack(5).Append(nil)
	b.Run("wire", func(b *testing.B) {
		var t wire.Track
		b.ReportAllocs()
		for b.Loop() {
			if err := t.Unmarshal(data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("live", func(b *testing.B) {
		var t wire.Track
		b.ReportAllocs()
		for b.Loop() {
			if err := t.UnmarshalLive(data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("generated", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var t starlingv1.TrackRecord
			if err := proto.Unmarshal(data, &t); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkEncodeTrack(b *testing.B) {
	t := sampleTrack(5)
	b.Run("wire", func(b *testing.B) {
		var buf []byte
		b.ReportAllocs()
		for b.Loop() {
			buf = t.Append(buf[:0])
		}
	})
	b.Run("generated", func(b *testing.B) {
		var buf []byte
		pb := t.ToProto()
		b.ReportAllocs()
		for b.Loop() {
			var err error
			if buf, err = (proto.MarshalOptions{}).MarshalAppend(buf[:0], pb); err != nil {
				b.Fatal(err)
			}
		}
	})
}
