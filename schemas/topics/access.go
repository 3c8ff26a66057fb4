package topics

// Access is what a role does with a topic.
type Access struct {
	// Topic is the topic's name.
	Topic string
	// Read and Write say whether the role reads records of it and appends to it.
	Read, Write bool
}

// Roles returns the names of the roles that use the log.
func Roles() []string { return []string{"ingest", "tracker", "matcher", "rides", "history"} }

// AccessOf returns what a role reads and writes, and nothing for one that is not known.
func AccessOf(role string) []Access {
	read := func(topic string) Access { return Access{Topic: topic, Read: true} }
	write := func(topic string) Access { return Access{Topic: topic, Write: true} }
	both := func(topic string) Access { return Access{Topic: topic, Read: true, Write: true} }
	switch role {
	case "ingest": // reads the log's stamps, to judge its clock by
		return []Access{both(Locations)}
	case "tracker": // appends ticks, and looks where what it has published ends
		return []Access{both(Locations), both(Tracks), both(TrackerState), write(DeadLetters)}
	case "matcher":
		return []Access{read(Tracks)}
	case "rides": // appends proposals and releases to the vehicles' partitions
		return []Access{both(RideRequests), both(Rides), both(RidesState), write(Locations), read(Tracks), write(DeadLetters)}
	case "history":
		return []Access{read(Tracks), both(HistoryState)}
	}
	return nil
}
