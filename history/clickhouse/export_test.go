package clickhouse

// SetStep has a function called before each insert.
func (s *Sink) SetStep(step func(name string) error) { s.step = step }
