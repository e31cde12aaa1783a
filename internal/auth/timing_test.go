//go:build !race

package auth

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/apikey"
	"github.com/sluice-gateway/sluice/internal/config"
)

// TestTimingTellsNothing measures the function behind check for keys that there are
// and keys that there are not, of the same shape, in random order, as dudect does
// (Reparaz, Balasch, Verbauwhede: Dude, is my code constant time? DATE 2017): Welch's t
// of the two means, when the slowest measurements, which are those of interrupts, are
// left out at several percentiles.
//
// Which lines of a cache keys and tables happen to lie in makes a nanosecond in one
// direction or the other. So the keys that there are not are chosen to be looked for in
// the buckets where the others are found, and what counts is the median of t, with its
// sign, over several sets of keys: what the code itself leaks has the same sign in all
// of them (an early end of the search makes it 20 to 230). Once more is allowed, for a
// machine that is busy with something else.
func TestTimingTellsNothing(t *testing.T) {
	d, r, _, texts := manyStored(t, 2000)
	defer d.close()
	var declared []string
	f := &config.File{Clients: []config.Client{{ID: "acme"}}}
	for range 2000 {
		key := "other-" + newKey(t)[4:40]
		declared = append(declared, key)
		f.Clients[0].Keys = append(f.Clients[0].Keys, config.ClientKey{Hash: hashOf(key)})
	}
	_, other := keysOf(t, d.engine, f, &config.Authenticator{})
	for _, c := range []struct {
		name    string
		realm   *realm
		valid   []string
		invalid func(valid string) string
	}{
		{"own keys", r, texts, func(string) string { return newKey(t) }},
		{"own keys, half of the secret guessed", r, texts, func(v string) string { return resecret(v, v[:40]+newKey(t)[40:60]) }},
		{"own keys beside hashes", other, texts, func(string) string { return newKey(t) }},
		{"keys of other shapes", other, declared, func(string) string { return "other-" + newKey(t)[4:40] }},
	} {
		var medians []float64
		for range 2 {
			var all []float64
			for set := range 9 {
				in := newInputs(t, c.realm.keyring(), d.Directory, c.valid[set*inputsEach:], c.invalid)
				all = append(all, in.measure())
			}
			t.Logf("%s: t = %.2f", c.name, all)
			slices.Sort(all)
			if medians = append(medians, math.Abs(all[len(all)/2])); medians[len(medians)-1] < 4.5 {
				break
			}
		}
		if slices.Min(medians) >= 4.5 {
			t.Errorf("%s: the median of |t| is %.2f, valid keys and others can be told apart by time", c.name, medians)
		}
	}
}

// inputsEach is how many keys there are of each class: all of it stays in the fastest
// memory.
const inputsEach = 8

// inputs are keys to measure, the valid ones at even places.
type inputs struct {
	ring  *keyring
	dir   *Directory
	own   bool
	size  int
	texts [2 * inputsEach][128]byte
}

func newInputs(t *testing.T, ring *keyring, d *Directory, valid []string, invalid func(string) string) *inputs {
	in := &inputs{ring: ring, dir: d, own: apikey.IsOwn([]byte(valid[0])), size: len(valid[0])}
	for i := range inputsEach {
		bad := invalid(valid[i])
		for in.bucket(bad) != in.bucket(valid[i]) {
			bad = invalid(valid[i])
		}
		copy(in.texts[2*i][:], valid[i])
		copy(in.texts[2*i+1][:], bad)
		if _, err := ring.match(d, []byte(valid[i])); err != nil {
			t.Fatal(err)
		}
		if _, err := ring.match(d, []byte(bad)); err != errUnknown || len(bad) != in.size {
			t.Fatal(bad, err)
		}
	}
	return in
}

// bucket is where a key is looked for.
func (in *inputs) bucket(key string) *keyBucket {
	table, sum := in.ring.others, apikey.Digest([]byte(key))
	if in.own {
		table, sum = in.dir.keys, apikey.Fingerprint([]byte(key))
	}
	w := words(&sum)
	s := table.shards[w[0]%shards].Load()
	return &s.buckets[w[0]/shards&s.mask]
}

// measure returns the t that is farthest from 0 of some shares of 100,000 measurements.
func (in *inputs) measure() float64 {
	const tries = 100_000
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	var times [2][]float64
	for range tries {
		i := random.IntN(len(in.texts))
		key := in.texts[i][:in.size]
		began := time.Now()
		in.ring.find(in.dir, key, in.own)
		times[i%2] = append(times[i%2], float64(time.Since(began)))
	}
	return farthest(times, 0.5, 0.8, 0.9, 0.99)
}

// farthest is the t of two classes of measurements that is farthest from 0, of those
// of some shares of the fastest.
func farthest(times [2][]float64, shares ...float64) float64 {
	all := slices.Sorted(slices.Values(slices.Concat(times[0], times[1])))
	worst := 0.0
	for _, share := range shares {
		cut := all[int(share*float64(len(all)))]
		if t := welch(under(times[0], cut), under(times[1], cut)); math.Abs(t) > math.Abs(worst) {
			worst = t
		}
	}
	return worst
}

func under(list []float64, cut float64) []float64 {
	var out []float64
	for _, v := range list {
		if v <= cut {
			out = append(out, v)
		}
	}
	return out
}

// welch is Welch's t of two samples.
func welch(a, b []float64) float64 {
	m, v := moments(a)
	n, w := moments(b)
	return (m - n) / math.Sqrt(cmp.Or(v/float64(len(a))+w/float64(len(b)), 1e-9))
}

func moments(list []float64) (mean, variance float64) {
	for _, v := range list {
		mean += v
	}
	mean /= float64(len(list))
	for _, v := range list {
		variance += (v - mean) * (v - mean)
	}
	return mean, variance / float64(len(list)-1)
}

// An unknown name takes as long as a known one. Other processes disturb what is
// measured, so that the slower half is left out, and one undisturbed round of three is
// enough; a difference in what is done would show in each.
func TestTimingOfPasswordsTellsNothing(t *testing.T) {
	a, err := basicOf(t, config.Authenticator{}, "ops:"+bcryptOf(t, "right"))
	if err != nil {
		t.Fatal(err)
	}
	score := 0.0
	for range 3 {
		var times [2][]float64
		for i := range 800 {
			class := (i + i/2) % 2 // 0 1 1 0 0 1 1 0
			x := withAuthorization(basicText([]string{"ops:wrong", "abc:wrong"}[class]))
			began := time.Now()
			_, _ = a.check(x, a.find(x), false)
			times[class] = append(times[class], float64(time.Since(began)))
		}
		if score = farthest(times, 0.5); math.Abs(score) < 4.5 {
			return
		}
	}
	t.Errorf("|t| = %.1f", score)
}
