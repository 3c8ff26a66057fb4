// Package corruption holds the drills that damage a real process's log and take
// its file descriptors. They are tests: the short form runs with all others, the
// long one, with more kinds of damage, with `make drill-corruption`.
package corruption
