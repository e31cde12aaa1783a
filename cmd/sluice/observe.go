package main

import (
	"strconv"

	"github.com/sluice-gateway/sluice/internal/server"
	"github.com/sluice-gateway/sluice/internal/store/redis"
	"github.com/sluice-gateway/sluice/internal/telemetry"
	"github.com/sluice-gateway/sluice/internal/upstream"
)

// observe shows the state of pools and listeners among the metrics. They are
// read at a scrape, and cost nothing otherwise.
func (n *node) observe() {
	for _, m := range []struct {
		name, help string
		register   func(name, help string, labels []string, read func(telemetry.Emit))
		value      func(t *upstream.TargetStatus) float64
	}{
		{"sluice_upstream_in_flight", "Exchanges that a target works on now.", n.telemetry.RegisterGauge, func(t *upstream.TargetStatus) float64 { return float64(t.InFlight) }},
		{"sluice_upstream_connections_open", "Connections to a target, idle ones included.", n.telemetry.RegisterGauge, func(t *upstream.TargetStatus) float64 { return float64(t.Open) }},
		{"sluice_upstream_connections_idle", "Connections kept for the next exchange.", n.telemetry.RegisterGauge, func(t *upstream.TargetStatus) float64 { return float64(t.Idle) }},
		{"sluice_upstream_waiting", "Exchanges that wait for a connection.", n.telemetry.RegisterGauge, func(t *upstream.TargetStatus) float64 { return float64(t.Waiting) }},
		{"sluice_upstream_out", "1 while a target is set aside because it could not be connected to.", n.telemetry.RegisterGauge, func(t *upstream.TargetStatus) float64 { return truth(t.Out) }},
		{"sluice_upstream_attempts_total", "Exchanges sent to a target, retries included.", n.telemetry.RegisterCounter, func(t *upstream.TargetStatus) float64 { return float64(t.Requests) }},
		{"sluice_upstream_failures_total", "Attempts that brought no valid response.", n.telemetry.RegisterCounter, func(t *upstream.TargetStatus) float64 { return float64(t.Failures) }},
	} {
		m.register(m.name, m.help, []string{"upstream", "target", "address"}, func(emit telemetry.Emit) {
			for _, u := range n.Upstreams() {
				for i := range u.Targets {
					emit(m.value(&u.Targets[i]), u.Name, u.Targets[i].URL, u.Targets[i].Address)
				}
			}
		})
	}
	if n.state.shared != nil {
		observeRedis(n.telemetry, n.state.shared)
	}
	for _, m := range []struct {
		name, help string
		register   func(name, help string, labels []string, read func(telemetry.Emit))
		value      func(l *server.ListenerStats) float64
	}{
		{"sluice_connections_open", "Client connections.", n.telemetry.RegisterGauge, func(l *server.ListenerStats) float64 { return float64(l.Open) }},
		{"sluice_connections_idle", "Client connections that wait for a request.", n.telemetry.RegisterGauge, func(l *server.ListenerStats) float64 { return float64(l.Idle) }},
		{"sluice_tunnels_open", "Client connections that were upgraded.", n.telemetry.RegisterGauge, func(l *server.ListenerStats) float64 { return float64(l.Tunnels) }},
		{"sluice_http2_connections_open", "Client connections that speak HTTP/2.", n.telemetry.RegisterGauge, func(l *server.ListenerStats) float64 { return float64(l.HTTP2) }},
		{"sluice_http2_streams_open", "Streams of HTTP/2 at work.", n.telemetry.RegisterGauge, func(l *server.ListenerStats) float64 { return float64(l.Streams) }},
		{"sluice_connections_accepted_total", "Client connections accepted.", n.telemetry.RegisterCounter, func(l *server.ListenerStats) float64 { return float64(l.Accepted) }},
		{"sluice_connections_refused_total", "Client connections over a limit.", n.telemetry.RegisterCounter, func(l *server.ListenerStats) float64 { return float64(l.Refused) }},
		{"sluice_tls_handshake_failures_total", "TLS handshakes that failed.", n.telemetry.RegisterCounter, func(l *server.ListenerStats) float64 { return float64(l.BadHandshakes) }},
	} {
		m.register(m.name, m.help, []string{"listener", "address"}, func(emit telemetry.Emit) {
			stats := n.server.Stats()
			for i := range stats {
				emit(m.value(&stats[i]), stats[i].Name, stats[i].Address)
			}
		})
	}
}

// observeRedis shows how the client of state.redis does. What limits made of it is
// among their own metrics.
func observeRedis(t *telemetry.Telemetry, c *redis.Client) {
	for _, m := range []struct {
		name, help string
		labels     []string
		read       func(telemetry.Emit)
	}{
		{"sluice_redis_calls_total", "Calls of Redis, by operation and result.", []string{"op", "result"}, func(emit telemetry.Emit) {
			calls := c.Stats().Calls
			for op := range calls {
				for result, n := range calls[op] {
					emit(float64(n), redis.Op(op).String(), redis.Result(result).String())
				}
			}
		}},
		{"sluice_redis_objects_total", "What happened to objects of the cache and to purges in Redis, by event.", []string{"event"}, func(emit telemetry.Emit) {
			for event, n := range c.Events() {
				emit(float64(n), redis.Event(event).String())
			}
		}},
		{"sluice_redis_round_trips_total", "Calls that were answered within le seconds.", []string{"le"}, func(emit telemetry.Emit) {
			sum, trips := uint64(0), c.Stats().Trips
			for i, n := range trips {
				sum += n
				le := "+Inf"
				if i < len(trips)-1 {
					le = strconv.FormatFloat(redis.Bound(i).Seconds(), 'g', -1, 64)
				}
				emit(float64(sum), le)
			}
		}},
		{"sluice_redis_round_trip_seconds_total", "The time that all answered calls took.", nil, func(emit telemetry.Emit) { emit(c.Stats().TripTime.Seconds()) }},
		{"sluice_redis_records_regressed_total", "How often Redis had records older than what was known: it was restored, or lost its last writes.", nil, func(emit telemetry.Emit) { emit(float64(c.Regressed())) }},
		{"sluice_redis_breaker_opened_total", "How often calls stopped because Redis did not answer.", nil, func(emit telemetry.Emit) { emit(float64(c.Stats().Opened)) }},
	} {
		t.RegisterCounter(m.name, m.help, m.labels, m.read)
	}
	gauge := struct{ name, help string }{"sluice_redis_in_flight", "Calls of Redis that have no answer yet, those that nobody waits for any more included."}
	t.RegisterGauge(gauge.name, gauge.help, nil, func(emit telemetry.Emit) { emit(float64(c.Stats().InFlight)) })
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
