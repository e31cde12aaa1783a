package config

import (
	"testing"
	"time"
)

func parseGood(t *testing.T, text string) *File {
	t.Helper()
	f, ds := Parse("sluice.yaml", []byte(text), testEnv())
	if len(ds) > 0 {
		t.Fatal(ds)
	}
	return f
}

func TestTimesOfTheCacheAreWholeSeconds(t *testing.T) {
	f := parseGood(t, `
upstreams: {a: {respond: {status: 200}}}
apis:
  - defaults: {upstream: a, cache: {ttl: 1500ms, max_ttl: 2s, stale_while_revalidate: 1ns, stale_if_error: 106751d23h47m16s}}
    routes: [{path: /a}, {path: /b}]
`)
	for _, r := range f.APIs[0].Routes {
		c := r.Cache
		if c.TTL.Duration != 2*time.Second || c.TTL.Text != "1500ms" || c.MaxTTL.Duration != 2*time.Second || c.StaleWhileRevalidate.Duration != time.Second {
			t.Errorf("%s: %+v", r.Path, c)
		}
		if c.StaleIfError.Duration < 106751*24*time.Hour {
			t.Errorf("the longest duration became %d", c.StaleIfError.Duration)
		}
	}
	if d := f.APIs[0].Defaults.Cache.TTL; d.Duration != 1500*time.Millisecond {
		t.Errorf("the defaults were changed: %d", d.Duration)
	}
}

func TestTheLargestObjectFitsTheMemory(t *testing.T) {
	for text, want := range map[string]int64{
		"{}":                                  1 << 20,
		"{memory: 8MiB}":                      1 << 20,
		"{memory: 1MiB}":                      128 << 10,
		"{memory: 1MiB, max_object: 2KiB}":    2 << 10,
		"{memory: 1GiB, max_object: 128MiB}":  128 << 20,
		"{memory: 256MiB, max_object: 32MiB}": 32 << 20,
	} {
		f := parseGood(t, "cache: "+text+"\nupstreams: {a: {respond: {status: 200}}}\nroutes: [{path: /, upstream: a}]\n")
		if got := f.Cache.MaxObject.Bytes; got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

func TestTheCallerIsFoundInTexts(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "",
		"client.id":               "",
		"{client.id}":             "{client.id}",
		"a {b} { client.plan } c": "{ client.plan }",
		"{claims[0]}":             "{claims[0]}",
		"{client}":                "{client}",
		"{params.client}":         "",
		"{clients.id}":            "",
		"{client_id}":             "",
		"{client.id":              "",
		"{request.ip}":            "",
	} {
		if got := callerIn(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
