//go:build !race

package limit

// raceEnabled: the race detector makes memory and allocations mean nothing.
const raceEnabled = false
