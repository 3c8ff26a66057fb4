// Package history is the role that keeps every fix: it owns partitions of `tracks`
// and writes their rows (package row) to a lake of Parquet files (package lake).
package history
