package liveindex

// ReachM is how far a search allows a vehicle to be from where it was seen.
func (x *Index) ReachM(a Ahead) float64 { return x.reachM(a) }
