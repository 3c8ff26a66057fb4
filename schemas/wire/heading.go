package wire

// NarrowHeading returns a heading in degrees as the 32-bit float in which it
// travels. One below 360 that would be rounded up to 360, such as 359.99999,
// becomes 0: 360 is no heading.
func NarrowHeading(deg float64) float32 {
	narrow := float32(deg)
	if narrow == 360 && deg < 360 {
		return 0
	}
	return narrow
}
