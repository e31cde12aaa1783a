package auth

import (
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// register adds what the engine knows to the metrics. What filters decided is counted
// by the chain, for each route.
func (e *Engine) register(t *telemetry.Telemetry) {
	for _, m := range []struct {
		name, help string
		read       func() float64
	}{
		{"sluice_auth_clients", "Clients that were made through the admin API.", func() float64 { clients, _ := e.directory.size(); return float64(clients) }},
		{"sluice_auth_keys", "API keys that were made through the admin API, revoked ones that are remembered included.", func() float64 { _, keys := e.directory.size(); return float64(keys) }},
		{"sluice_auth_in_step", "1 while clients and keys are those of the store, 0 while they may have changed there.", e.directory.inStep},
	} {
		t.RegisterGauge(m.name, m.help, nil, func(emit telemetry.Emit) { emit(m.read()) })
	}
	fetches := struct{ name, help string }{"sluice_auth_key_set_fetches_total", "Fetches of the keys of token issuers, by result."}
	t.RegisterCounter(fetches.name, fetches.help, []string{"result"}, func(emit telemetry.Emit) {
		ok, failed := e.keySets.fetches()
		emit(float64(ok), "ok")
		emit(float64(failed), "error")
	})
}

func (d *Directory) inStep() float64 {
	if d.behind.Load() {
		return 0
	}
	return 1
}

// size is how many clients and keys there are.
func (d *Directory) size() (clients, keys int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.clients), len(d.stored)
}

// fetches is how often keys of issuers were fetched, and how often that failed.
func (k *keySets) fetches() (ok, failed uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.registry == nil {
		return 0, 0
	}
	return k.registry.Fetches()
}
