//go:build !race

package server_test

// raceEnabled: the race detector makes memory and allocations mean nothing.
const raceEnabled = false
