package ask

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func deskOf(t *testing.T, o Options) *Desk[string] {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	o.Now = time.Now
	d := NewDesk[string](o)
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// says answers at once, for a minute.
func says(v string) Call[string] {
	return func(context.Context) (Answer[string], error) {
		return Answer[string]{Value: v, Until: time.Now().Add(time.Minute)}, nil
	}
}

func TestAThousandWhoAskTheSameMakeOneCall(t *testing.T) {
	for _, keep := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			d := deskOf(t, Options{Keep: keep})
			var calls, right atomic.Int64
			answer := make(chan struct{})
			var all sync.WaitGroup
			for range 1000 {
				all.Go(func() {
					v, err := d.Ask(t.Context(), Key{1}, func(context.Context) (Answer[string], error) {
						calls.Add(1)
						<-answer
						return Answer[string]{Value: "it", Until: time.Now().Add(time.Minute)}, nil
					})
					if v == "it" && err == nil {
						right.Add(1)
					}
				})
			}
			synctest.Wait()
			close(answer)
			all.Wait()
			if calls.Load() != 1 || right.Load() != 1000 {
				t.Errorf("keep %v: %d calls, %d answers", keep, calls.Load(), right.Load())
			}
			if v, ok := d.Kept(&Key{1}); ok != keep || keep && v != "it" {
				t.Errorf("keep %v: kept %q, %v", keep, v, ok)
			}
		})
	}
}

func TestWhoAsksAloneSharesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deskOf(t, Options{Alone: true})
		var calls atomic.Int64
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				_, _ = d.Ask(t.Context(), Key{}, func(context.Context) (Answer[string], error) {
					calls.Add(1)
					time.Sleep(time.Millisecond) // of the bubble
					return Answer[string]{}, nil
				})
			})
		}
		all.Wait()
		if calls.Load() != 100 {
			t.Errorf("%d calls", calls.Load())
		}
	})
}

func TestAClientThatGoesAwayTakesTheAnswerFromNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deskOf(t, Options{Keep: true})
		answer := make(chan struct{})
		call := func(ctx context.Context) (Answer[string], error) {
			select {
			case <-answer:
				return says("it")(ctx)
			case <-ctx.Done():
				return Answer[string]{}, ctx.Err()
			}
		}
		first, leave := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := d.Ask(first, Key{}, call); err != gone {
				t.Errorf("who left: %v", err)
			}
		})
		synctest.Wait()
		all.Go(func() {
			if v, err := d.Ask(t.Context(), Key{}, call); v != "it" || err != nil {
				t.Errorf("who stayed: %q, %v", v, err)
			}
		})
		synctest.Wait()
		leave(gone)
		synctest.Wait()
		close(answer)
		all.Wait()
	})
}

func TestAnswersHoldAsLongAsTheySay(t *testing.T) {
	for _, c := range []struct {
		name    string
		holds   time.Duration
		refusal bool
		after   time.Duration
		want    bool
	}{
		{"just in time", time.Minute, false, time.Minute - 1, true},
		{"over", time.Minute, false, time.Minute, false},
		{"not at all", 0, false, 0, false},
		{"over already", -time.Second, false, 0, false},
		{"a refusal", 10 * time.Second, true, 10*time.Second - 1, true},
		{"a refusal that is over", 10 * time.Second, true, 10 * time.Second, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := deskOf(t, Options{Keep: true})
			_, _ = d.Ask(t.Context(), Key{}, func(context.Context) (Answer[string], error) {
				return Answer[string]{Until: time.Now().Add(c.holds), Refusal: c.refusal}, nil
			})
			time.Sleep(c.after) // of the bubble
			if _, ok := d.Kept(&Key{}); ok != c.want {
				t.Errorf("%s: kept %v", c.name, ok)
			}
		})
	}
}

func TestFailuresAreNotKept(t *testing.T) {
	d := deskOf(t, Options{Keep: true})
	down := errors.New("down")
	if _, err := d.Ask(t.Context(), Key{}, func(context.Context) (Answer[string], error) { return Answer[string]{}, down }); err != down {
		t.Error(err)
	}
	if v, err := d.Ask(t.Context(), Key{}, says("it")); v != "it" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
}

func TestACallEndsWithItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deskOf(t, Options{Timeout: 1500 * time.Millisecond})
		began := time.Now()
		_, err := d.Ask(t.Context(), Key{}, func(ctx context.Context) (Answer[string], error) {
			<-ctx.Done()
			return Answer[string]{}, ctx.Err()
		})
		if err == nil || err.Error() != "no answer within 1.5s" || time.Since(began) != 1500*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestCallsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deskOf(t, Options{Timeout: time.Hour})
		answer := make(chan struct{})
		var all sync.WaitGroup
		for i := range MaxCalls {
			all.Go(func() {
				_, err := d.Ask(t.Context(), Key{byte(i), byte(i >> 8), 1}, func(context.Context) (Answer[string], error) {
					<-answer
					return Answer[string]{}, nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if _, err := d.Ask(t.Context(), Key{}, says("it")); err != ErrFull {
			t.Errorf("one too many: %v", err)
		}
		close(answer)
		all.Wait()
		if v, err := d.Ask(t.Context(), Key{}, says("it")); v != "it" || err != nil {
			t.Errorf("with places free: %q, %v", v, err)
		}
	})
}

func TestRefusalsPushNoAnswerOut(t *testing.T) {
	d := deskOf(t, Options{Keep: true})
	_, _ = d.Ask(t.Context(), Key{}, says("it"))
	for i := range 4 * Entries {
		key := Key{31: 1}
		binary.BigEndian.PutUint64(key[:], uint64(i))
		_, _ = d.Ask(t.Context(), key, func(context.Context) (Answer[string], error) {
			return Answer[string]{Until: time.Now().Add(time.Minute), Refusal: true}, nil
		})
	}
	if v, ok := d.Kept(&Key{}); !ok || v != "it" {
		t.Error("the answer is gone")
	}
}

func TestCloseEndsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deskOf(t, Options{Timeout: time.Hour})
		var all sync.WaitGroup
		all.Go(func() {
			_, err := d.Ask(t.Context(), Key{}, func(ctx context.Context) (Answer[string], error) {
				<-ctx.Done()
				return Answer[string]{}, ctx.Err()
			})
			if err != context.Canceled {
				t.Error(err)
			}
		})
		synctest.Wait()
		_ = d.Close()
		all.Wait()
		if _, err := d.Ask(t.Context(), Key{}, says("it")); err != ErrClosed {
			t.Error(err)
		}
	})
}

func TestPartsAreToldApart(t *testing.T) {
	list := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 300), 0, 4)
	join := func(parts [][]byte) (b []byte) {
		for _, p := range parts {
			b = AppendPart(b, p)
		}
		return b
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := list.Draw(t, "a"), list.Draw(t, "b")
		same := fmt.Sprint(len(a), a) == fmt.Sprint(len(b), b)
		if bytes.Equal(join(a), join(b)) != same {
			t.Fatalf("%v and %v", a, b)
		}
	})
	if bytes.Equal(join([][]byte{{1, 'a'}}), join([][]byte{{}, {'a'}})) {
		t.Error("a part passes for two")
	}
}

func TestWhatIsKeptIsFoundWithoutAllocation(t *testing.T) {
	d := deskOf(t, Options{Keep: true})
	key := KeyOf([]byte("token"))
	_, _ = d.Ask(t.Context(), key, says("it"))
	if n := testing.AllocsPerRun(1000, func() {
		if _, ok := d.Kept(&key); !ok {
			t.Fatal("not kept")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
