package row

// Batch is what a sink writes at once: the rows of a range of records of one
// partition of `tracks`, all of one epoch.
type Batch struct {
	Partition int32
	Epoch     int64
	// First and Last are the offsets of the range's first and last record, both
	// included. Records without rows count.
	First, Last int64
	// Rows are the truth of each fix within the batch, as Dedup leaves them.
	Rows []Fix
}

// Written is what a sink has made of a batch.
type Written struct {
	// Files is how many files, or inserts, it has become.
	Files int
	// Bytes is their size; zero where the sink does not know it.
	Bytes int64
}
