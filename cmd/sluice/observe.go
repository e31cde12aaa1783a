package main

import (
	"github.com/sluice-gateway/sluice/internal/server"
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

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
