// Package clickhouse keeps rows of history in ClickHouse and answers from them.
//
// # Tables
//
// `fixes` is a ReplacingMergeTree: of the rows with one hour, vehicle and device time
// the one of the greatest `rank` is kept, and rank falls with (epoch, kind, offset), so
// the truth of row.Compare stands whatever the order and number of inserts. A read
// takes FINAL, because merges come when they come. The first column of its order is the
// hour: within it a vehicle's fixes follow each other, and an hour can be computed anew
// without reading its day.
//
// # Writing
//
// A batch is one insert for each day (partition) of its rows, and an insert of one
// block into one partition is a part that is there or not. A crash between two leaves a
// batch in part; whoever owns the partition of `tracks` next writes the same rows
// again, and the rows that are there already are replaced by themselves. Tokens of
// deduplication spare ClickHouse most of that work, but nothing rests on them: the
// window in which they are remembered is finite.
//
// Behind its fixes a batch touches the hours that it has rows of (table `touched`), and
// only then it is done. Statistics of cells are never sums that go on: an hour that was
// touched since it was computed last is computed anew from the fixes as FINAL shows
// them, in one insert that also puts zeros over cells that are no longer in it.
package clickhouse
