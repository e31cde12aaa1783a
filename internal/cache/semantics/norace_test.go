//go:build !race

package semantics_test

// raceEnabled: the race detector makes allocations mean nothing.
const raceEnabled = false
