package tracker

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// NewVersionSwitch returns the record that makes every tracker step by this
// binary's version and these settings from the record's offset on. It has to be
// appended to every partition of `locations`, with an empty key. Going back is
// another switch, to the former version and settings.
func NewVersionSwitch(settings Settings) (wire.Location, error) {
	digest, err := goldenDigest(settings)
	if err != nil {
		return wire.Location{}, err
	}
	return wire.Location{Kind: wire.KindVersionSwitch, Switch: wire.VersionSwitch{
		StepVersion: StepVersion, Settings: settings.Encode(), GoldenDigest: digest,
	}}, nil
}

// switchVersion starts the step version and settings that the log names.
func (p *Partition) switchVersion(offset int64, s *wire.VersionSwitch) error {
	refuse := func(reason string) error {
		return &UnknownVersionError{Offset: offset, StepVersion: s.StepVersion, Reason: reason}
	}
	if s.StepVersion != StepVersion {
		return refuse("it does not know the version")
	}
	settings, err := DecodeSettings(s.Settings)
	if err != nil {
		return refuse(fmt.Sprintf("the settings are not its own: %v", err))
	}
	if len(s.GoldenDigest) > 0 {
		digest, err := goldenDigest(settings)
		if err != nil {
			return refuse(err.Error())
		}
		if !bytes.Equal(digest, s.GoldenDigest) {
			return refuse(fmt.Sprintf("its golden outputs have the digest %x, not %x", digest, s.GoldenDigest))
		}
	}
	if err := p.use(settings); err != nil {
		return refuse(err.Error())
	}
	// The filter may have changed, and live must stay what base and the open
	// fixes make of it: it is made again when the vehicle reports next. Dues
	// may come earlier than they are placed.
	for _, v := range p.vehicles {
		v.liveValid = false
		p.dues.lower(v, p.due(v))
	}
	return nil
}

// goldenDigest is the SHA-256 of what a small log yields: a binary that answers
// another digest would disagree about the real one.
func goldenDigest(settings Settings) ([]byte, error) {
	p, err := NewPartition(settings, 1)
	if err != nil {
		return nil, err
	}
	hash := sha256.New()
	for _, rec := range goldenLog() {
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

// goldenLog is a log in which a bit of everything happens: three vehicles drive
// and stand, report more or less, repeat themselves, come out of order and
// late, change sessions and clocks, and fall silent.
func goldenLog() []eventlog.Stored {
	const startMS = 1_767_268_800_000
	var records []eventlog.Stored
	add := func(seconds int64, key string, l wire.Location) {
		records = append(records, eventlog.Stored{
			Offset: int64(len(records)), AppendTimeMS: startMS + seconds*1000, Key: []byte(key), Value: l.Append(nil),
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
			ms := startMS + (fixSecond-k)*1000
			driven := float64(min(fixSecond-k, 100)) // then it stands
			r.Fixes = append(r.Fixes, wire.Fix{
				DeviceTimeMS: ms,
				LatDeg:       30.27 + float64(vehicle) + driven*1e-4 + float64(i%7)*1e-6,
				LonDeg:       -97.74 + float64(i%5)*1e-6,
				AccuracyM:    float32(3 + i%6), SpeedMPS: 11, HeadingDeg: 1,
				Has: wire.Has(i % 8),
			})
		}
		if i%13 == 0 {
			r.Availability = starlingv1.Availability(1 + i%4)
		}
		add(i, string(rune('a'+vehicle)), wire.Location{Kind: wire.KindReport, Report: r})
	}
	for _, later := range []int64{270, 271, 300, 400, 90_000} {
		add(later, "", wire.Location{Kind: wire.KindTick})
	}
	return records
}
