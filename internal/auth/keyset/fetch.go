package keyset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/jose"
)

// newTransport makes the connections to issuers. No proxy of the environment is used:
// what is configured is what is asked.
func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: Timeout}
	return &http.Transport{
		DialContext: dialer.DialContext, TLSHandshakeTimeout: Timeout, ForceAttemptHTTP2: true, DisableCompression: true,
		MaxConnsPerHost: 2, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10,
	}
}

// fetch gets the keys, and for how long they are fresh.
func (s *Set) fetch(ctx context.Context) (keys []jose.Key, fresh time.Duration, err error) {
	at := s.place.URL
	if at == "" {
		if at, err = s.discover(ctx); err != nil {
			return nil, 0, err
		}
	}
	data, header, err := s.get(ctx, at)
	if err != nil {
		s.found = "" // it may have moved
		return nil, 0, err
	}
	all, err := jose.ParseKeys(data)
	if err != nil {
		return nil, 0, fmt.Errorf("GET %s: %w", at, err)
	}
	for i := range all {
		if !all[i].Symmetric() { // what is published is no secret
			keys = append(keys, all[i])
		}
	}
	if len(keys) == 0 {
		return nil, 0, fmt.Errorf("GET %s: %w", at, jose.ErrNoKeys)
	}
	return keys, freshness(header), nil
}

// discover returns where the issuer's discovery document says that its keys are
// (OpenID Connect Discovery 1.0 §4). The document is kept for an hour.
func (s *Set) discover(ctx context.Context) (string, error) {
	now := s.registry.now()
	if s.found != "" && now.Sub(s.foundAt) < time.Hour {
		return s.found, nil
	}
	at := strings.TrimSuffix(s.place.Issuer, "/") + "/.well-known/openid-configuration"
	data, _, err := s.get(ctx, at)
	if err != nil {
		return "", err
	}
	var doc struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return "", fmt.Errorf("GET %s: %w", at, err)
	}
	if doc.Issuer != s.place.Issuer {
		return "", fmt.Errorf("GET %s: it is of the issuer %.128q, not %q", at, doc.Issuer, s.place.Issuer)
	}
	if err := trusted(doc.Keys, s.place.Issuer); err != nil {
		return "", fmt.Errorf("GET %s: jwks_uri %.256q %w", at, doc.Keys, err)
	}
	s.found, s.foundAt = doc.Keys, now
	return s.found, nil
}

// trusted reports why keys cannot come from where a document sends us: not in plain
// text, unless the issuer itself is on this machine.
func trusted(keys, issuer string) error {
	k, err := url.Parse(keys)
	if err != nil || k.Host == "" || k.User != nil {
		return errors.New("is no URL")
	}
	i, err := url.Parse(issuer)
	if err != nil {
		return err
	}
	if k.Scheme == "https" || k.Scheme == "http" && loopback(k.Hostname()) && loopback(i.Hostname()) {
		return nil
	}
	return errors.New("is not https")
}

// loopback reports whether a host is this machine.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// get fetches a document of at most maxReply bytes. Redirects are not followed.
func (s *Set) get(ctx context.Context, at string) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	req.Header.Set("User-Agent", "sluice")
	resp, err := s.registry.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("GET %s: it answers %d, only 200 is good", at, resp.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("GET %s: %w", at, err)
	case len(data) > maxReply:
		return nil, nil, fmt.Errorf("GET %s: it is longer than %d bytes", at, maxReply)
	}
	return data, resp.Header, nil
}

// freshness is how long a reply is fresh by its Cache-Control, from minFresh to
// maxFresh.
func freshness(h http.Header) time.Duration {
	fresh := defaultFresh
	for _, line := range h.Values("Cache-Control") {
		for word := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(word), "=")
			switch strings.ToLower(name) {
			case "no-store", "no-cache":
				return minFresh
			case "max-age":
				if n, err := strconv.ParseInt(strings.Trim(value, `"`), 10, 32); err == nil {
					fresh = time.Duration(n) * time.Second
				}
			}
		}
	}
	return min(max(fresh, minFresh), maxFresh)
}
