package step

import (
	"crypto/sha256"
	"fmt"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// goldenSnapshotEvery is how many records of the golden log lie between two
// snapshots.
const goldenSnapshotEvery = 50

// goldenDigest is the SHA-256 of the filter's own golden outputs and of what a
// small log yields, tracks and checkpoints: a binary that computes another digest
// would disagree about the real one, or leave state that others can't read.
func (v *Version) goldenDigest(settings Settings) ([]byte, error) {
	p, err := Versions{*v}.NewPartition(settings, 1)
	if err != nil {
		return nil, err
	}
	hash := sha256.New()
	ofFilter := p.filter.GoldenDigest()
	hash.Write(ofFilter[:])
	for i, rec := range goldenLog() {
		if i%goldenSnapshotEvery == 0 {
			for _, change := range p.Snapshot(nil, nil).Changes {
				hash.Write(change.Key)
				hash.Write(change.Value)
			}
		}
		r, err := p.Step(rec)
		if err != nil {
			return nil, fmt.Errorf("golden log: %w", err)
		}
		if r.Poison != nil {
			return nil, fmt.Errorf("golden log: %w", r.Poison)
		}
		hash.Write(r.Track.Append(nil))
	}
	return hash.Sum(nil), nil
}

// goldenStartMS is where the golden log starts.
const goldenStartMS = 1_767_268_800_000

// goldenLog is a log in which a bit of everything happens: three vehicles drive
// and stand, report more or less, repeat themselves, come out of order and
// late, change sessions and clocks, and fall silent; two phones report for one,
// a device is ahead, and the stamps jump back and forth. Products are converted,
// so that no compiler fuses them with an addition: the log is the same everywhere.
func goldenLog() []Record {
	var records []Record
	add := func(seconds int64, key string, l wire.Location) {
		records = append(records, Record{
			Offset: int64(len(records)), AppendTimeMS: goldenStartMS + seconds*1000, Key: []byte(key), Value: l.Append(nil),
		})
	}
	for i := range int64(240) {
		vehicle := i % 3
		session := uint64(1 + i/150)
		fixSecond := i
		switch {
		case i%17 == 5:
			fixSecond -= 9 // out of order
		case i%41 == 7:
			fixSecond -= 100 // late
		case i >= 180 && vehicle == 1:
			fixSecond -= 3600 // a clock that was set back
		case i == 120:
			fixSecond += 3600 // and one that jumped
		}
		r := wire.Report{SessionID: session, Sequence: 1 + i%150 - i%29/28}
		for k := range 1 + i%4 {
			ms := goldenStartMS + (fixSecond-k)*1000
			driven := float64(min(fixSecond-k, 100)) // then it stands
			r.Fixes = append(r.Fixes, wire.Fix{
				DeviceTimeMS: ms,
				LatDeg:       30.27 + float64(vehicle) + float64(driven*1e-4) + float64(float64(i%7)*1e-6),
				LonDeg:       -97.74 + float64(float64(i%5)*1e-6),
				AccuracyM:    float32(3 + i%6), SpeedMPS: 11, HeadingDeg: 1,
				Has: wire.Has(i % 8),
			})
		}
		if i%13 == 0 {
			r.Availability = starlingv1.Availability(1 + i%4)
		}
		add(i, string(rune('a'+vehicle)), wire.Location{Kind: wire.KindReport, Report: r})
	}
	goldenPhones(add)
	for _, later := range []int64{500, 501, 530, 90_000, 90_010, 90_031, 90_061, 90_100, 600, 631, 640} {
		add(later, "", wire.Location{Kind: wire.KindTick})
	}
	return records
}

// goldenPhones adds what two phones report for one vehicle, one after the other
// and together, the second for a while ahead of time.
func goldenPhones(add func(seconds int64, key string, l wire.Location)) {
	for i := range int64(200) {
		session, fixSecond := uint64(1), 240+i
		switch {
		case i > 150, i > 40 && i < 120 && i%3 == 0:
			session = 2
		case i > 120:
			session = 3
		}
		if i > 60 && i < 100 && session == 2 {
			fixSecond += 60
		}
		r := wire.Report{SessionID: session, Sequence: 1 + 2*i}
		r.Fixes = append(r.Fixes, wire.Fix{DeviceTimeMS: goldenStartMS + fixSecond*1000, LatDeg: 30.27 + float64(float64(i)*1e-4), LonDeg: 10 + float64(float64(session)*1e-3)})
		if i%20 == 0 {
			r.Availability = starlingv1.Availability(1 + i/20%5)
		}
		if i%50 == 0 {
			r.HasAttributes, r.Attributes = true, wire.Attributes{Type: "van", Seats: int32(i)}
		}
		add(240+i, "phones", wire.Location{Kind: wire.KindReport, Report: r})
		if i%10 == 9 { // the same fix once more, under a new sequence
			r.Sequence++
			add(240+i, "phones", wire.Location{Kind: wire.KindReport, Report: r})
		}
	}
}
