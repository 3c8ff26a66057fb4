package nearest

import (
	"errors"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// found is what is taken from the answer for each vehicle: what go-redis makes
// of GEOSEARCH's answer too.
type found struct {
	name           string
	distanceM      float64
	latDeg, lonDeg float64
}

// answer is a SearchNearestResponse of which only that is decoded. The load
// generator shares the CPUs with the server, and the generated types, which
// allocate for each of a vehicle's parts, cost it more than all the rest of the
// call.
type answer struct{ results []found }

var errAnswer = errors.New("the answer is not a SearchNearestResponse")

func (a *answer) decode(b []byte) error {
	a.results = a.results[:0]
	return eachField(b, func(num protowire.Number, value []byte, _ uint64) error {
		if num != 1 {
			return nil
		}
		a.results = append(a.results, found{})
		return a.results[len(a.results)-1].decode(value)
	})
}

func (f *found) decode(nearby []byte) error {
	return eachField(nearby, func(num protowire.Number, value []byte, bits uint64) error {
		switch num {
		case 1:
			return f.decodeVehicle(value)
		case 2:
			f.distanceM = math.Float64frombits(bits)
		}
		return nil
	})
}

func (f *found) decodeVehicle(vehicle []byte) error {
	return eachField(vehicle, func(num protowire.Number, value []byte, _ uint64) error {
		switch num {
		case 1:
			f.name = string(value)
		case 5:
			return eachField(value, func(num protowire.Number, _ []byte, bits uint64) error {
				switch num {
				case 1:
					f.latDeg = math.Float64frombits(bits)
				case 2:
					f.lonDeg = math.Float64frombits(bits)
				}
				return nil
			})
		}
		return nil
	})
}

// eachField calls fn with the bytes or the 64 bits of each field.
func eachField(b []byte, fn func(num protowire.Number, value []byte, bits uint64) error) error {
	for len(b) > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errAnswer
		}
		b = b[n:]
		var value []byte
		var bits uint64
		switch kind {
		case protowire.BytesType:
			value, n = protowire.ConsumeBytes(b)
		case protowire.Fixed64Type:
			bits, n = protowire.ConsumeFixed64(b)
		default:
			n = protowire.ConsumeFieldValue(num, kind, b)
		}
		if n < 0 {
			return errAnswer
		}
		b = b[n:]
		if err := fn(num, value, bits); err != nil {
			return err
		}
	}
	return nil
}
