//go:build linux

package trial

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/sluice-gateway/sluice/bench/internal/attribution"
	"github.com/sluice-gateway/sluice/bench/internal/report"
)

// What a limit takes, by attribution. The difference of two gateways, with the limit
// and without, is small beside what disturbs both: at saturation chance decides how much
// work each wake-up finds, and that weighs more than the limit. The gateway's own profile
// of one run does not care: it says what part of the samples is in the limiter, and the
// CPU per request of the same window says how much that is. Package attribution says what
// this leaves out.

// Attributed reports whether a scenario's limit is all that the base's filters have to do.
func (s Scenario) Attributed() bool { return s.Limit != "" && s.Identity == "" && !s.Cached }

// profileSlice is how long one profile is: new connections, and another share of luck,
// come every so often, and a server that bounds its answers' time need not be asked for
// a minute.
const profileSlice = 10 * time.Second

// leastSeen is the least share of the accounted CPU that a profile may stand for. Where
// timers come late some samples are lost, which is no harm as long as all are as likely.
const leastSeen = 0.5

// attribute profiles the base, which has a limit, under full load.
func (b *Bench) attribute(ctx context.Context, s *subject) error {
	if s.absent() || s.profile == "" {
		return nil
	}
	for left := b.Profile; left > 0; left -= profileSlice {
		p, err := b.profiled(ctx, s, max(time.Second, min(left, profileSlice)))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if b.note(s, err); err != nil {
			return nil
		}
		s.result.Profiles = append(s.result.Profiles, p)
	}
	b.Say("  profile  %-8s the limiter takes %s", s.result.Name, s.result.Attribution())
	return nil
}

// profiled is one window with a profile, of whole seconds.
func (b *Bench) profiled(ctx context.Context, s *subject, window time.Duration) (report.Profile, error) {
	window = window.Round(time.Second)
	var text []byte
	c, err := b.observe(ctx, s, max(b.Warm, time.Second), window, func(ctx context.Context, _ time.Time) error {
		var err error
		text, err = fetch(ctx, fmt.Sprintf("%s?seconds=%d", s.profile, int(window.Seconds())), window+10*time.Second)
		return err
	})
	if err != nil {
		return report.Profile{}, err
	}
	split, err := attribution.Read(bytes.NewReader(text), s.limiter)
	if err != nil {
		return report.Profile{}, err
	}
	p := report.Profile{Requests: c.Requests, CPU: c.CPU(), Split: split}
	if seen := p.Seen(); seen < leastSeen {
		return p, fmt.Errorf("the profile saw %.0f %% of the CPU time that the system accounted", 100*seen)
	}
	return p, nil
}

// fetch reads what an address serves.
func fetch(ctx context.Context, url string, patience time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: status %d, %.200q", url, resp.StatusCode, body)
	}
	return body, err
}
