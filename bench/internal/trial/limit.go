//go:build linux

package trial

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/sluice-gateway/sluice/bench/internal/gateways"
	"github.com/sluice-gateway/sluice/bench/internal/load"
	"github.com/sluice-gateway/sluice/bench/internal/stats"
)

// limitRate is how many requests per second each key may make: far more than
// come, so that nothing is refused.
const limitRate = 1_000_000

// Shared reports whether a scenario has a limit that several gateways could share,
// which takes a Redis.
func (s Scenario) Shared() bool { return s.Limit == "leased" || s.Limit == "exact" }

// limited is what a scenario's gateways are to limit; store is host:port of
// the Redis.
func limited(sc *Scenario, store string) *gateways.Limit {
	if sc.Limit == "" {
		return nil
	}
	return &gateways.Limit{Field: sc.field(), Rate: limitRate, Scope: sc.Limit, Redis: store, Identity: identity(sc)}
}

// store starts a Redis, which keeps nothing on disk, for a scenario whose limit
// is shared; nil: it needs none. It runs where load and origin do.
func (b *Bench) store(ctx context.Context, sc *Scenario) (*process, string, error) {
	if !sc.Shared() {
		return nil, "", nil
	}
	for try := 0; ; try++ {
		ports, err := freePorts(1)
		if err != nil {
			return nil, "", err
		}
		dir, err := b.folder("redis")
		if err != nil {
			return nil, "", err
		}
		_, port, err := net.SplitHostPort(ports[0])
		if err != nil {
			return nil, "", err
		}
		p, err := b.spawn.run("redis", dir, gateways.Command{Path: b.Redis, Args: []string{
			"--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", dir, "--maxclients", "1000",
		}}, b.loadCPUs)
		if err != nil {
			return nil, "", err
		}
		err = p.await(ctx, 10*time.Second, func() error {
			c, err := net.Dial("tcp", ports[0])
			if err != nil {
				return err
			}
			defer c.Close()
			return ping(c)
		})
		if err == nil {
			return p, ports[0], nil
		}
		p.stop()
		if !p.out.taken() || try == 2 {
			return nil, "", err
		}
	}
}

// ping asks a Redis whether it is there.
func ping(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	answer := make([]byte, 16)
	n, err := c.Read(answer)
	if err == nil && string(answer[:n]) != "+PONG\r\n" {
		err = fmt.Errorf("redis answers %q", answer[:n])
	}
	return err
}

// bare starts the same gateway without its limit, to tell what that adds.
func (b *Bench) bare(ctx context.Context, sc *Scenario, g gateways.Gateway, s *subject, list []*load.Request) error {
	twin, err := b.start(ctx, sc, g, s.conns, list, nil)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if b.note(s, err); err == nil {
		s.bare = twin
		twin.result.Name += ", no limit"
	}
	return nil
}

// pairSlices is the order of the slices in which two are measured beside each other.
// A machine whose speed drifts, straight or in a curve, is as fast for the one as for
// the other.
var pairSlices = [...]int{0, 1, 1, 0, 1, 0, 0, 1}

// basePairs is how often the base is measured with its limit and without in each
// round. Its budget is a small difference of large figures.
const basePairs = 3

// adds measures every gateway with its limit and without, one right after the
// other, in turn the one and the other first.
func (b *Bench) adds(ctx context.Context, subjects []*subject, round int) error {
	for i, s := range subjects {
		if s.bare == nil {
			continue
		}
		pairs := 1
		if i == 0 {
			pairs = basePairs
		}
		for range pairs {
			if s.absent() {
				break
			}
			if err := b.pair(ctx, s, round); err != nil {
				return err
			}
		}
	}
	return nil
}

// pair measures one gateway with its limit and without.
func (b *Bench) pair(ctx context.Context, s *subject, round int) error {
	both := []*subject{s, s.bare}
	if len(s.result.Limit)%2 == 1 {
		both[0], both[1] = both[1], both[0]
	}
	cpu, requests := map[*subject]float64{}, map[*subject]float64{}
	slice := b.Window * 2 / time.Duration(len(pairSlices))
	if s.shares {
		// A lease is dear when it is cold, and goes cold between two slices. What is
		// sought is what a gateway at work pays, so the slices are whole windows.
		slice = b.Window
	}
	for _, i := range pairSlices {
		m := both[i]
		c, err := b.saturate(ctx, m, b.Warm/3, slice)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if b.note(s, err); err != nil {
			return nil
		}
		cpu[m] += c.CPU() * float64(c.Requests)
		requests[m] += float64(c.Requests)
	}
	p := stats.Pair{A: cpu[s] / requests[s], B: cpu[s.bare] / requests[s.bare]}
	s.result.Limit = append(s.result.Limit, p)
	b.Say("  round %d  %-8s the limit adds %.1f µs (%.1f without)", round+1, s.result.Name, p.A-p.B, p.B)
	return nil
}

// end stops a gateway and its twin.
func (s *subject) end() {
	if s.process != nil {
		s.stop()
	}
	if s.bare != nil {
		s.bare.end()
	}
}
