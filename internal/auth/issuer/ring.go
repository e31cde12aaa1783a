package issuer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/jose"
	"github.com/sluice-gateway/sluice/internal/store"
)

// This file keeps signing keys. The keys of an algorithm are numbered, and each
// signs from a moment on until the next one does:
//
//	key 1   published, signs ──────────────30 days──────────────┐ verifies, hold ┐
//	key 2                                     published ── 24 h ─┘ signs ─────────
//
// A new key is published a day before it signs, so that whoever keeps a copy of the
// key set no longer than a day knows it in time. An old one stays published until the
// last token that it can have signed has ended. Gateways that share records make a
// key under a number at the same time; one of them wins, and all use what it has made.

const (
	keyPrefix = "issuer/"
	// period is how long a key signs.
	period = 30 * 24 * time.Hour
	// notice is how long a key is published before it signs.
	notice = 24 * time.Hour
	// slack is how much longer than its tokens a key is kept: clocks differ.
	slack = time.Hour
)

// ring is the signing keys. Reading it takes no lock.
type ring struct {
	now atomic.Pointer[keys] // nil: never read
	mu  sync.Mutex           // of those who change it
	// fetched is when, in Unix ns, the records were last read for the sake of one token.
	fetched atomic.Int64
}

// keys are those that there are. They do not change.
type keys struct {
	all  []*key // by algorithm and number
	byID map[string]*key
	jwks []byte
}

// key is one signing key. Only gone changes.
type key struct {
	id        string
	algorithm string
	number    int           // 0: another key has its number in the records; it only verifies
	from      time.Time     // when it begins to sign
	hold      time.Duration // the longest access token that it signs
	signer    *jose.Signer
	public    jose.Key
	jwk       json.RawMessage
	version   int64        // of its record
	gone      *atomic.Bool // it is none any more: nothing that it has signed holds
}

// kept is a key as its record has it.
type kept struct {
	ID        string        `json:"kid"`
	Algorithm string        `json:"alg"`
	Number    int           `json:"number"`
	From      time.Time     `json:"from"`
	Hold      time.Duration `json:"hold"`
	Private   []byte        `json:"pkcs8"`
}

func recordOf(algorithm string, number int) string {
	return keyPrefix + algorithm + "." + strconv.Itoa(number)
}

// newKey makes a key. It takes a tenth of a second for RS256.
func newKey(algorithm string, number int, from time.Time, hold time.Duration) (*key, error) {
	s, err := jose.NewSigner(algorithm)
	if err != nil {
		return nil, err
	}
	return keyOf(s, algorithm, number, from, hold)
}

func keyOf(s *jose.Signer, algorithm string, number int, from time.Time, hold time.Duration) (*key, error) {
	jwk, err := s.JWK()
	if err != nil {
		return nil, err
	}
	return &key{
		id: s.ID(), algorithm: algorithm, number: number, from: from, hold: hold,
		signer: s, public: s.Key(), jwk: jwk, gone: new(atomic.Bool),
	}, nil
}

// record is the key as it is kept.
func (k *key) record() ([]byte, error) {
	private, err := k.signer.PKCS8()
	if err != nil {
		return nil, err
	}
	return json.Marshal(kept{ID: k.id, Algorithm: k.algorithm, Number: k.number, From: k.from, Hold: k.hold, Private: private})
}

// parseKey reads a record. Its errors say nothing of what is in it.
func parseKey(r store.Record) (*key, error) {
	var from kept
	if json.Unmarshal(r.Value, &from) != nil || recordOf(from.Algorithm, from.Number) != r.Key {
		return nil, errors.New("is damaged")
	}
	s, err := jose.ParseSigner(from.Private, from.Algorithm, from.ID)
	if err != nil {
		return nil, errors.New("has no usable key in it")
	}
	k, err := keyOf(s, from.Algorithm, from.Number, from.From, from.Hold)
	if err != nil {
		return nil, errors.New("has a key that cannot be published")
	}
	k.version = r.Version
	return k, nil
}

// ready reports whether the keys are known.
func (r *ring) ready() bool { return r.now.Load() != nil }

// find returns the key of an id, nil when there is none.
func (r *ring) find(id string) *key {
	if all := r.now.Load(); all != nil {
		return all.byID[id]
	}
	return nil
}

// signing returns the key that signs at now: the newest that has begun to. It is nil
// when there is no key of the algorithm.
func (r *ring) signing(algorithm string, now time.Time) *key {
	all := r.now.Load()
	if all == nil {
		return nil
	}
	return all.signing(algorithm, now)
}

func (all *keys) signing(algorithm string, now time.Time) (best *key) {
	for _, k := range all.all {
		if k.algorithm == algorithm && k.number > 0 && (best == nil || !k.from.After(now)) {
			best = k
		}
	}
	return best
}

// newest returns the key of an algorithm with the highest number, nil without one.
func (all *keys) newest(algorithm string) (best *key) {
	for _, k := range all.all {
		if k.algorithm == algorithm && k.number > 0 {
			best = k
		}
	}
	return best
}

// algorithms are those of which there are keys.
func (r *ring) algorithms() (names []string) {
	if all := r.now.Load(); all != nil {
		for _, k := range all.all {
			if !slices.Contains(names, k.algorithm) {
				names = append(names, k.algorithm)
			}
		}
	}
	return names
}

// jwks is the key set as it is published (RFC 7517 §5).
func (r *ring) jwks() []byte {
	if all := r.now.Load(); all != nil {
		return all.jwks
	}
	return noKeys
}

var noKeys = []byte(`{"keys":[]}`)

// set puts keys in place of those that are there, and ends those that are left out.
// The caller holds r.mu.
func (r *ring) set(list []*key) error {
	slices.SortFunc(list, func(a, b *key) int {
		return cmp.Or(cmp.Compare(a.algorithm, b.algorithm), cmp.Compare(a.number, b.number), cmp.Compare(a.id, b.id))
	})
	next := &keys{all: list, byID: make(map[string]*key, len(list))}
	published := struct {
		Keys []json.RawMessage `json:"keys"`
	}{Keys: []json.RawMessage{}}
	for _, k := range list {
		next.byID[k.id] = k
		published.Keys = append(published.Keys, k.jwk)
	}
	var err error
	if next.jwks, err = json.Marshal(published); err != nil {
		return fmt.Errorf("key set: %w", err)
	}
	last := r.now.Swap(next)
	if last == nil {
		return nil
	}
	for _, k := range last.all {
		if next.byID[k.id] == nil {
			k.gone.Store(true)
		}
	}
	return nil
}

// load reads the records. A key that was known and has no record any more, because
// the store was put back to an older state, is recorded again.
func (r *ring) load(ctx context.Context, records store.Records, now time.Time, log *slog.Logger) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*key
	names := map[string]bool{}
	err := records.All(ctx, keyPrefix, func(record store.Record) bool {
		names[record.Key] = true
		k, err := parseKey(record)
		if err != nil {
			log.Error("a key of the token issuer cannot be read, tokens that it has signed are refused", "record", record.Key, "error", err)
			return true
		}
		if known := r.find(k.id); known != nil {
			k.gone = known.gone
		}
		list = append(list, k)
		return true
	})
	if err != nil {
		return err
	}
	if last := r.now.Load(); last != nil {
		for _, k := range last.all {
			if slices.ContainsFunc(list, func(other *key) bool { return other.id == k.id }) || last.ended(k, nil, now) {
				continue
			}
			if names[recordOf(k.algorithm, k.number)] {
				unnumbered := *k
				unnumbered.number = 0
				k = &unnumbered
			}
			list = append(list, k)
			if k.number == 0 {
				continue
			}
			if err := r.write(ctx, records, k, 0); err != nil {
				return err
			}
		}
	}
	return r.set(list)
}

// write puts a key into the records, in place of the given version.
func (r *ring) write(ctx context.Context, records store.Records, k *key, version int64) error {
	if records == nil {
		return nil
	}
	value, err := k.record()
	if err != nil {
		return err
	}
	k.version, err = records.Apply(ctx, []store.Change{{Key: recordOf(k.algorithm, k.number), Value: value, If: version}})
	return err
}

// tend makes the key of an algorithm that is due, and notes how long the tokens hold
// that it signs from now on. store.ErrConflict: another gateway was faster.
func (r *ring) tend(ctx context.Context, records store.Records, algorithm string, lifetime time.Duration, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.now.Load()
	if all == nil {
		all = &keys{}
	}
	list := slices.Clone(all.all)
	for at, k := range list {
		if k.algorithm != algorithm || k.number == 0 || k.hold >= lifetime {
			continue
		}
		if next := k.next(all); next != nil && !next.from.After(now) {
			continue // it signs no more
		}
		longer := *k
		longer.hold = lifetime
		if err := r.write(ctx, records, &longer, k.version); err != nil {
			return err
		}
		list[at] = &longer
	}
	var due *key
	var err error
	switch newest := all.newest(algorithm); {
	case newest == nil:
		due, err = newKey(algorithm, 1, now, lifetime)
	case !now.Before(newest.from.Add(period - notice)):
		from := newest.from.Add(period)
		if earliest := now.Add(notice); from.Before(earliest) {
			from = earliest
		}
		due, err = newKey(algorithm, newest.number+1, from, lifetime)
	}
	if err != nil {
		return err
	}
	if due != nil {
		if err := r.write(ctx, records, due, 0); err != nil {
			return err
		}
		list = append(list, due)
	}
	if due == nil && slices.Equal(list, all.all) {
		return nil
	}
	return r.set(list)
}

// next is the key that signs behind k, nil without one.
func (k *key) next(all *keys) *key {
	for _, other := range all.all {
		if k.number > 0 && other.algorithm == k.algorithm && other.number > k.number {
			return other
		}
	}
	return nil
}

// ended reports whether nothing that k has signed can hold any more. A key without a
// successor goes on signing where its algorithm is in use.
func (all *keys) ended(k *key, used map[string]time.Duration, now time.Time) bool {
	last := k.from.Add(period)
	if next := k.next(all); next != nil {
		last = next.from
	} else if _, ok := used[k.algorithm]; ok && k.number > 0 {
		return false
	}
	return now.After(last.Add(max(k.hold, notice) + slack))
}

// sweep removes keys that have ended.
func (r *ring) sweep(ctx context.Context, records store.Records, used map[string]time.Duration, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.now.Load()
	if all == nil {
		return nil
	}
	list := make([]*key, 0, len(all.all))
	for _, k := range all.all {
		if !all.ended(k, used, now) {
			list = append(list, k)
			continue
		}
		if records != nil && k.number > 0 {
			_, err := records.Apply(ctx, []store.Change{{Key: recordOf(k.algorithm, k.number), If: k.version}})
			if err != nil && !errors.Is(err, store.ErrConflict) { // another gateway has done it
				return err
			}
		}
	}
	if len(list) == len(all.all) {
		return nil
	}
	return r.set(list)
}

// cooldown is how long the records are not read again for a token whose key is not known.
const cooldown = time.Second

// Keys returns the candidates for a token's `kid`, for jose. A key that another
// gateway has made a moment ago may not be known yet: it is looked for, at most once
// in a cooldown.
func (i *Issuer) Keys(id string) ([]jose.Key, error) {
	if strings.HasPrefix(id, hmacPrefix) {
		return nil, nil
	}
	k := i.ring.find(id)
	if k == nil && i.records != nil {
		i.fetch()
		k = i.ring.find(id)
	}
	switch {
	case k != nil:
		return []jose.Key{k.public}, nil
	case i.records != nil && !i.ring.ready():
		return nil, fmt.Errorf("%w: the token issuer's keys have not been read yet", jose.ErrUnavailable)
	}
	return nil, nil
}

func (i *Issuer) fetch() {
	now, last := i.now().UnixNano(), i.ring.fetched.Load()
	if last != 0 && now-last < int64(cooldown) || !i.ring.fetched.CompareAndSwap(last, now) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := i.ring.load(ctx, i.records, i.now(), i.log); err != nil {
		i.again()
	}
}
