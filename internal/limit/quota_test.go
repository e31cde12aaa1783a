package limit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/store"
)

func openFile(t *testing.T, dir string) *store.File {
	t.Helper()
	f, err := store.OpenFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func quotas(limit int64, period string) *config.File {
	return &config.File{Plans: map[string]*config.Plan{"standard": {Quota: &config.Quota{Limit: limit, Period: period}}}, DefaultPlan: "standard"}
}

func TestQuotasSurviveARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		for i, want := range []int{5, 5, 3} { // of 13
			f := openFile(t, dir)
			r := newRig(t, Options{File: f}, quotas(13, "day"))
			if n := r.admitted(5, "acme"); n != want {
				t.Errorf("run %d: %d admitted, want %d", i, n, want)
			}
			r.close()
			closeEngine(t, r.e)
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(12 * time.Hour)
		f := openFile(t, dir)
		r := newRig(t, Options{File: f}, quotas(13, "day"))
		if n := r.admitted(20, "acme"); n != 13 {
			t.Errorf("%d admitted the next day", n)
		}
		r.close()
		closeEngine(t, r.e)
		_ = f.Close()
	})
}

func TestACrashLosesAtMostASecondOfQuotas(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		f := openFile(t, dir)
		r := newRig(t, Options{File: f}, quotas(1000, "month"))
		in := 0
		for range 105 { // 10.5 s
			in += r.admitted(3, "acme")
			time.Sleep(100 * time.Millisecond)
		}
		// What is on disk now is what a crash leaves.
		left := filepath.Join(t.TempDir(), "left")
		if err := os.CopyFS(left, onlyFiles{os.DirFS(dir)}); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(left, 0o700); err != nil {
			t.Fatal(err)
		}
		r.close()
		closeEngine(t, r.e)
		_ = f.Close()

		f = openFile(t, left)
		defer func() { _ = f.Close() }()
		r = newRig(t, Options{File: f}, quotas(1000, "month"))
		more := r.admitted(2000, "acme")
		if lost := in + more - 1000; in != 315 || lost < 0 || lost > 30 {
			t.Errorf("%d admitted before and %d behind the crash of 1000: %d lost", in, more, lost)
		}
		r.close()
		closeEngine(t, r.e)
	})
}

// onlyFiles hides what cannot be copied: the lock of who owns the folder.
type onlyFiles struct{ fs.FS }

func (o onlyFiles) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(o.FS, name)
	var files []fs.DirEntry
	for _, e := range all {
		if e.Type().IsRegular() {
			files = append(files, e)
		}
	}
	return files, err
}

func TestAChangedQuotaKeepsItsUse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, Options{}, quotas(10, "week"))
		if n := r.admitted(20, "acme"); n != 10 {
			t.Fatal(n)
		}
		old := r.chain
		r.file = quotas(15, "week")
		r.compile()
		_ = old.Close()
		if n := r.admitted(20, "acme"); n != 5 {
			t.Errorf("%d admitted, 5 were left", n)
		}
		old = r.chain
		r.file = quotas(0, "week")
		r.compile()
		_ = old.Close()
		x := request("acme")
		err := r.ask(x)
		if err == nil || fieldOf(err, "Retry-After") != "" {
			t.Errorf("a quota of nothing: %v, Retry-After %q", err, fieldOf(err, "Retry-After"))
		}
		expect(t, x, `"standard.week";q=0;w=604800`, `"standard.week";r=0;t=388800`)
	})
}

func TestKeepTakesAFileLater(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		e := newEngine(t, Options{})
		f := openFile(t, dir)
		defer func() { _ = f.Close() }()
		if err := e.Keep(f); err != nil {
			t.Fatal(err)
		}
		if err := e.Keep(f); err == nil {
			t.Error("kept twice")
		}
		c := compileRoute(t, e, quotas(10, "day"), &config.Route{Name: "users"}, new(sync.Map))
		_ = c.Request(request("acme"))
		time.Sleep(1500 * time.Millisecond)
		q, ok, err := f.Quota("c:/acme:standard.day")
		if err != nil || !ok || q.Count != 1 {
			t.Errorf("%+v, %v, %v", q, ok, err)
		}
		_ = c.Close()
		closeEngine(t, e)
	})
}

func TestUsage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		f := openFile(t, dir)
		before := newRig(t, Options{File: f}, quotas(10, "day"))
		before.admitted(3, "old")
		before.close()
		closeEngine(t, before.e)

		r := newRig(t, Options{File: f}, quotas(10, "day"))
		r.admitted(4, "acme")
		r.admitted(4, "")
		midnight := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
		acme := Usage{Client: "acme", Plan: "standard", Period: "day", Limit: 10, Used: 4, Remaining: 6, ResetsAt: midnight}
		old := Usage{Client: "old", Plan: "standard", Period: "day", Limit: 10, Used: 3, Remaining: 7, ResetsAt: midnight}
		for _, c := range []struct {
			client, period string
			want           []Usage
		}{{"", "", []Usage{acme, old}}, {"acme", "", []Usage{acme}}, {"old", "day", []Usage{old}}, {"", "week", nil}, {"nobody", "", nil}} {
			got, err := r.e.Usage(t.Context(), c.client, c.period, nil)
			if err != nil || len(got) != len(c.want) {
				t.Fatalf("%+v: %+v, %v", c, got, err)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("%+v: got %+v", c, got[i])
				}
			}
		}
		r.close()
		closeEngine(t, r.e)
		_ = f.Close()
	})
}

// Who used what is known of all declared clients, wherever and however long ago they
// came, for few calls.
func TestUsageOfAllIsThatOfAllGateways(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, rigs, links := gateways(t, 2, quotas(500, "day"))
		declared := map[string][]string{}
		for i := range 1000 {
			declared["standard"] = append(declared["standard"], fmt.Sprint("c", i))
		}
		rigs[1].admitted(3, "c7")
		rigs[0].admitted(4, "c999")
		rigs[0].admitted(5, "undeclared")
		time.Sleep(time.Minute) // the tables forget them
		if n := rigs[0].admitted(2, "lately"); n != 2 {
			t.Fatal(n)
		}
		before := links[0].takes.Load()
		got, err := rigs[0].e.Usage(t.Context(), "", "", declared)
		var all []string
		for _, u := range got {
			all = append(all, fmt.Sprint(u.Client, " ", u.Plan, " ", u.Used, "+", u.Remaining))
		}
		if want := []string{"c7 standard 3+497", "c999 standard 4+496", "lately standard 2+498"}; err != nil || !slices.Equal(all, want) {
			t.Errorf("%q, %v, want %q", all, err, want)
		}
		if n := links[0].takes.Load() - before; n != 32 {
			t.Errorf("%d calls for 1001 clients", n)
		}
		if got, err := rigs[0].e.Usage(t.Context(), "", "week", declared); err != nil || len(got) != 0 {
			t.Errorf("of a week: %+v, %v", got, err)
		}
	})
}

func TestUsageWaitsForALateStore(t *testing.T) {
	late := fmt.Errorf("%w: late", store.ErrUnavailable)
	for name, c := range map[string]struct {
		fails int64 // this many charges
		err   error
		most  time.Duration // until there is an answer
		want  error
	}{
		"late a few times": {fails: 40, err: late, most: 200 * time.Millisecond},
		"late always":      {fails: 1 << 40, err: late, most: time.Second, want: store.ErrUnavailable},
		"another's key":    {fails: 1, err: store.ErrKey, want: store.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				_, rigs, links := gateways(t, 1, quotas(500, "day"))
				var ids []string
				for i := range 100 {
					ids = append(ids, fmt.Sprint("c", i))
				}
				rigs[0].admitted(3, "c50")
				time.Sleep(10 * time.Second)
				var left atomic.Int64
				left.Store(c.fails)
				links[0].end = func(store.Charge) (bool, error) {
					if left.Add(-1) >= 0 {
						return false, c.err
					}
					return true, nil
				}
				begun := time.Now()
				got, err := rigs[0].e.Usage(t.Context(), "", "", map[string][]string{"standard": ids})
				if took := time.Since(begun); took > c.most || !errors.Is(err, c.want) {
					t.Errorf("%v after %v, want %v within %v", err, took, c.want, c.most)
				}
				if c.want == nil && (len(got) != 1 || got[0].Client != "c50" || got[0].Used != 3) {
					t.Errorf("%+v", got)
				}
				// Who asked is gone.
				left.Store(1 << 40)
				links[0].end = func(store.Charge) (bool, error) { return false, late }
				ctx, stop := context.WithTimeout(t.Context(), 5*time.Millisecond)
				defer stop()
				begun = time.Now()
				if _, err := rigs[0].e.Usage(ctx, "", "", map[string][]string{"standard": ids}); err == nil || time.Since(begun) > 5*time.Millisecond {
					t.Errorf("nobody waits: %v after %v", err, time.Since(begun))
				}
				links[0].end = nil
			})
		})
	}
}

func TestSharedQuotas(t *testing.T) {
	bubbleAt(t, late, func(t *testing.T) {
		_, rigs, links := gateways(t, 2, quotas(500, "day"))
		in := 0
		for range 400 {
			in += rigs[0].admitted(1, "acme") + rigs[1].admitted(1, "acme")
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(3 * time.Second)
		in += rigs[0].admitted(100, "acme") + rigs[1].admitted(100, "acme")
		if in != 500 {
			t.Errorf("%d of 500 admitted", in)
		}
		if calls := links[0].settles.Load() + links[1].settles.Load(); calls > 200 {
			t.Errorf("%d calls", calls)
		}
		got, err := rigs[0].e.Usage(t.Context(), "acme", "", nil)
		if err != nil || len(got) != 1 || got[0].Used != 500 || got[0].Remaining != 0 {
			t.Errorf("%+v, %v", got, err)
		}
		// Away, who had used it up stays refused.
		links[0].set(false)
		if n := rigs[0].admitted(10, "acme"); n != 0 {
			t.Errorf("%d admitted while the store is away", n)
		}
		if _, err := rigs[0].e.Usage(t.Context(), "acme", "", nil); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("usage: %v", err)
		}
		links[0].set(true)
		time.Sleep(2 * time.Minute)
		if n := rigs[1].admitted(10, "acme"); n != 10 {
			t.Errorf("%d of 10 admitted the next day", n)
		}
	})
}

func TestARefusalChargesNoSharedQuota(t *testing.T) {
	bubbleAt(t, late, func(t *testing.T) {
		file := quotas(5, "day")
		_, rigs, links := gateways(t, 2, file, scoped("exact", tokens("1/h", 3)), tokens("1/h", 4))
		for i := range 20 {
			x := request("acme")
			err := rigs[i%2].ask(x)
			if (err == nil) != (i < 3) {
				t.Fatalf("request %d: %v", i, err)
			}
			if err != nil && err.Code != exchange.RateLimited {
				t.Errorf("request %d: %v", i, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		for i, r := range rigs {
			if got, err := r.e.Usage(t.Context(), "acme", "", nil); err != nil || len(got) != 1 || got[0].Used != 3 {
				t.Errorf("gateway %d: %+v, %v", i, got, err)
			}
		}
		// What is refused by memory still says how the others stand.
		before := links[0].takes.Load() + links[0].settles.Load()
		x := request("acme")
		if err := rigs[0].ask(x); err == nil || fieldOf(err, "Retry-After") != "3598" {
			t.Errorf("got %v, Retry-After %s", err, fieldOf(err, "Retry-After"))
		}
		if n := links[0].takes.Load() + links[0].settles.Load(); n != before {
			t.Errorf("%d calls for a refusal that was known", n-before)
		}
		expect(t, x, `"users.0";q=3;w=10800, "users.1";q=4;w=14400, "standard.day";q=5;w=86400`, `"users.0";r=0;t=10798, "users.1";r=2;t=7198, "standard.day";r=2;t=118`)
	})
}

func TestAQuotaThatIsUsedUpSaysHowTheOthersStand(t *testing.T) {
	bubbleAt(t, late, func(t *testing.T) {
		_, rigs, links := gateways(t, 1, quotas(2, "day"), scoped("exact", tokens("1/m", 10)))
		if n := rigs[0].admitted(2, "acme"); n != 2 {
			t.Fatal(n)
		}
		for i := range 3 {
			x := request("acme")
			err := rigs[0].ask(x)
			if err == nil || err.Code != exchange.QuotaExceeded || fieldOf(err, "Retry-After") != "120" {
				t.Fatalf("refusal %d: %v, Retry-After %s", i, err, fieldOf(err, "Retry-After"))
			}
			expect(t, x, `"standard.day";q=2;w=86400, "users.0";q=10;w=600`, `"standard.day";r=0;t=120, "users.0";r=8;t=120`)
		}
		if n := links[0].takes.Load(); n != 3 {
			t.Errorf("%d calls, want one for each that was admitted and one to look", n)
		}
	})
}
