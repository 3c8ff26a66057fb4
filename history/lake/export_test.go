package lake

// SetStep has fn called before each durable step of a write.
func (s *Sink) SetStep(fn func(name string) error) { s.step = fn }
