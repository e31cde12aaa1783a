package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"
)

const (
	killedClients = 12 // that every round changes
	killedKeys    = 3  // rounds of which keys are kept
)

// roundChanges is what round i does at once: it changes every client, makes a key,
// revokes the one of the round before and removes an old one.
func roundChanges(i int64) []Change {
	value := fmt.Appendf(nil, "%0800d", i) // so that they fill some pages
	var c []Change
	for j := range killedClients {
		c = append(c, Change{Key: fmt.Sprintf("client/%02d", j), Value: value, If: Always})
	}
	c = append(c, Change{Key: keyOf(i), Value: []byte("live"), If: 0})
	if i > 1 {
		c = append(c, Change{Key: keyOf(i - 1), Value: []byte("revoked"), If: Always, Expires: time.Now().Add(time.Hour)})
	}
	if i > killedKeys {
		c = append(c, Change{Key: keyOf(i - killedKeys), If: Always})
	}
	return c
}

func keyOf(round int64) string { return fmt.Sprintf("key/%09d", round) }

// applyUntilKilled says each round on its output when it is acknowledged. Others
// write beside it, so that commits are shared.
func applyUntilKilled(dir string) error {
	f, err := OpenFile(dir)
	if err != nil {
		return err
	}
	for j := range 2 {
		go func() {
			for n := 0; ; n++ {
				_, _ = f.Apply(context.Background(), []Change{{Key: fmt.Sprintf("once/%d/%d", j, n), Value: []byte{}, If: Always, Expires: time.Now().Add(time.Millisecond)}})
			}
		}()
	}
	i, err := recordRound(f)
	for err == nil {
		i++
		var version int64
		if version, err = f.Apply(context.Background(), roundChanges(i)); err == nil {
			fmt.Println(i, version)
		}
	}
	return err
}

// recordRound checks that f holds one round and nothing of others, and returns it.
func recordRound(f *File) (int64, error) {
	var rounds []string
	keys := map[string]string{}
	versions := map[int64]bool{}
	err := f.All(context.Background(), "", func(r Record) bool {
		switch {
		case r.Key[:4] == "clie":
			rounds = append(rounds, string(r.Value))
			versions[r.Version] = true
		case r.Key[:4] == "key/":
			keys[r.Key] = string(r.Value)
		}
		return true
	})
	switch {
	case err != nil || len(rounds) == 0 && len(keys) == 0:
		return 0, err
	case len(rounds) != killedClients || len(slices.Compact(rounds)) != 1 || len(versions) != 1:
		return 0, fmt.Errorf("rounds %v, versions %v: a change is half done", rounds, versions)
	}
	i, err := strconv.ParseInt(rounds[0], 10, 64)
	want := map[string]string{}
	for j := max(i-killedKeys+1, 1); j <= i; j++ {
		want[keyOf(j)] = "revoked"
	}
	want[keyOf(i)] = "live"
	if fmt.Sprint(keys) != fmt.Sprint(want) {
		return 0, fmt.Errorf("round %d has keys %v, want %v", i, keys, want)
	}
	return i, err
}

func TestRecordsOutliveTwoHundredKills(t *testing.T) {
	dir := t.TempDir()
	var acknowledged, version int64
	changes, under := int64(0), 0
	for n := range 200 {
		c := child(t, "records", dir)
		out, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		killed := make(chan error, 1)
		for first := true; lines.Scan(); first = false {
			if _, err := fmt.Sscan(lines.Text(), &acknowledged, &version); err != nil {
				t.Fatalf("kill %d: %s", n, lines.Text())
			}
			if first { // from here on at any moment
				time.AfterFunc(time.Duration(rand.IntN(20_000))*time.Microsecond, func() { killed <- c.Process.Kill() })
			}
		}
		_ = c.Wait() // killed
		if err := <-killed; err != nil {
			t.Fatal(err)
		}
		f := open(t, dir)
		got, err := recordRound(f)
		if err != nil || got != acknowledged && got != acknowledged+1 {
			t.Fatalf("kill %d: round %d is kept, %d was acknowledged: %v", n, got, acknowledged, err)
		}
		if got > acknowledged {
			under++
		}
		r, err := f.Get(t.Context(), "client/00")
		if err != nil || r.Version < version || got == acknowledged && r.Version != version {
			t.Fatalf("kill %d: version %d, acknowledged was %d: %v", n, r.Version, version, err)
		}
		if _, err := f.Apply(t.Context(), []Change{{Key: keyOf(got), Value: []byte{}, If: 0}}); !errors.Is(err, ErrConflict) {
			t.Fatal(err)
		}
		changes = got
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d rounds, %d of them kept without an acknowledgement", changes, under)
}
