// Package history is the role that keeps every fix: it owns partitions of `tracks`
// and writes their rows (package row) to sinks, each by a consumer group of its own: a
// lake of Parquet files (package lake) and ClickHouse (package clickhouse).
package history
