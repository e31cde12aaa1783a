package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// runningDemo starts the demo on free ports and returns its URLs. The test's end stops it.
func runningDemo(t *testing.T) (gateway, admin string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	var errs strings.Builder
	ended := make(chan error, 1)
	go func() {
		ended <- runDemo(ctx, 0, in, &errs)
		_ = in.Close()
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the demo ends with %v\n%s", err, &errs)
		}
		_ = out.Close()
	})
	lines := bufio.NewScanner(out)
	first := regexp.MustCompile(`^(gateway  |admin API) (http://[0-9.:]+)`)
	for gateway == "" || admin == "" {
		if !lines.Scan() {
			t.Fatal("the demo does not say where it is")
		}
		switch m := first.FindStringSubmatch(lines.Text()); {
		case m == nil:
		case m[1] == "admin API":
			admin = m[2]
		default:
			gateway = m[2]
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return gateway, admin
}

func TestTheDemoShowsTheCache(t *testing.T) {
	gateway, admin := runningDemo(t)
	ask := func() (status, age, body string) {
		resp, err := http.Get(gateway + "/forecast?ms=1")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%d, %v: %s", resp.StatusCode, err, text)
		}
		return resp.Header.Get("Cache-Status"), resp.Header.Get("Age"), string(text)
	}
	const stored = "sluice; fwd=uri-miss; stored"
	hit := regexp.MustCompile(`^sluice; hit; ttl=(5[0-9]|60)$`)
	first, age, body := ask()
	if first != stored || age != "" {
		t.Errorf("at first: %q, age %q; want %q", first, age, stored)
	}
	if second, age, again := ask(); !hit.MatchString(second) || age == "" || again != body {
		t.Errorf("then: %q, age %q, %s; want a hit and %s", second, age, again, body)
	}
	resp, err := http.Post(admin+"/v1/cache/purge", "application/json", strings.NewReader(`{"url":"`+gateway+`/forecast?ms=1"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 || !strings.Contains(string(text), `"purged": true`) {
		t.Fatalf("the purge: %d, %v: %s", resp.StatusCode, err, text)
	}
	if after, _, _ := ask(); after != stored {
		t.Errorf("behind the purge: %q, want %q", after, stored)
	}
	http.DefaultClient.CloseIdleConnections()
}
