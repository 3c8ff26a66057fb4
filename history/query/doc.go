// Package query serves starling.v1.HistoryService from a store of history: it holds
// requests to their rules and callers to their share, thins tracks, and shows callers
// positions as precisely as they may see them.
//
// Every answer is a stream of parts of bounded size, and what a call holds does not
// grow with its answer. A call ends when it has read as many fixes as one may, when
// its time is over, or when its caller's token is.
package query
