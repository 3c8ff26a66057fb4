package wire_test

import "testing"

func fuzz(f *testing.F, k kind) {
	f.Add([]byte{}, []byte{})
	f.Add(sampleRequest(2).Append(nil), sampleRequest(1).Append(nil))
	f.Add(sampleTrack(1).Append(nil), sampleTrack(2).Append(nil))
	f.Add([]byte{0x0a, 0x02, 0x18, 0x05, 0x12, 0x00, 0x0a, 0x02, 0x28, 0x02}, []byte{0x1a, 0x02, 0x08, 0x05})
	f.Fuzz(func(t *testing.T, before, b []byte) {
		used := k.new()
		_ = used.Unmarshal(before) // leaves something behind, valid or not
		k.judge(t, used, b)
	})
}

func FuzzStreamRequest(f *testing.F) { fuzz(f, kinds[0]) }
func FuzzAck(f *testing.F)           { fuzz(f, kinds[1]) }
func FuzzLocation(f *testing.F)      { fuzz(f, kinds[2]) }
func FuzzTrack(f *testing.F)         { fuzz(f, kinds[3]) }
