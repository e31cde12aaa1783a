//go:build race

package gateway

// raceEnabled: the race detector makes pools forget, so allocations mean nothing.
const raceEnabled = true
