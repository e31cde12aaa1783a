package audit

import (
	"sync/atomic"

	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// counts are what metrics tell.
type counts struct {
	lines, lost, leftOut, failures atomic.Uint64
}

// register exposes the state of the log.
func (l *Log) register(t *telemetry.Telemetry) {
	for _, m := range []struct {
		name, help string
		register   func(name, help string, labels []string, read func(telemetry.Emit))
		value      func() float64
	}{
		{"sluice_audit_ok", "1 while the audit log can be written or there is none, else 0.", t.RegisterGauge, l.ok},
		{"sluice_audit_lines_total", "Lines of the audit log that are on disk.", t.RegisterCounter, count(&l.count.lines)},
		{"sluice_audit_failures_total", "Failed attempts to write to the audit log.", t.RegisterCounter, count(&l.count.failures)},
		{"sluice_audit_lost_total", "Events that the audit log lost because it could not be written.", t.RegisterCounter, count(&l.count.lost)},
		{"sluice_audit_left_out_total", "Refused requests beyond the lines that the audit log has for them in a second.", t.RegisterCounter, count(&l.count.leftOut)},
	} {
		m.register(m.name, m.help, nil, func(emit telemetry.Emit) { emit(m.value()) })
	}
}

// ok is 1 or 0.
func (l *Log) ok() float64 {
	if l.Healthy() {
		return 1
	}
	return 0
}

func count(n *atomic.Uint64) func() float64 {
	return func() float64 { return float64(n.Load()) }
}
