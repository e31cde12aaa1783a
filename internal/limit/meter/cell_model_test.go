package meter

import (
	"math/big"
	"time"
)

// The models: what each algorithm should say, computed from its definition with
// rational numbers or whole histories, and without a thought for speed. They are
// told the times in ticks, as the resolution is part of the limit, and otherwise
// take nothing from a Limit but its capacity.

// model is one key's state.
type model interface {
	// take charges if it fits; remaining is after it.
	take(tick, cost int64) (ok bool, remaining int64)
}

// logged is cost that was admitted at a tick.
type logged struct{ tick, cost int64 }

// sum is what was admitted in the ticks after and until, both as said.
func sum(log []logged, after, until int64) (n int64) {
	for _, a := range log {
		if a.tick > after && a.tick <= until {
			n += a.cost
		}
	}
	return n
}

// bucketModel is a bucket of tokens, refilled continuously.
type bucketModel struct {
	capacity, queue int64
	rate            *big.Rat // units a tick
	tokens          *big.Rat // may be below 0 with a queue
	last            int64
	started         bool
}

// newBucketModel is full. The rate is units per per, not the Limit's own fraction.
func newBucketModel(l *Limit, units int64, per time.Duration) *bucketModel {
	rate := new(big.Rat).Mul(big.NewRat(units, int64(per)), big.NewRat(int64(l.Tick), 1))
	return &bucketModel{capacity: l.Capacity, queue: l.Queue, rate: rate, tokens: new(big.Rat).SetInt64(l.Capacity)}
}

func (m *bucketModel) take(tick, cost int64) (bool, int64) {
	if full := new(big.Rat).SetInt64(m.capacity); m.started && tick > m.last {
		m.tokens.Add(m.tokens, new(big.Rat).Mul(m.rate, new(big.Rat).SetInt64(tick-m.last)))
		if m.tokens.Cmp(full) > 0 {
			m.tokens = full
		}
	}
	m.started, m.last = true, tick
	left := new(big.Rat).Sub(m.tokens, new(big.Rat).SetInt64(cost))
	ok := cost == 0 || left.Cmp(new(big.Rat).SetInt64(-m.queue)) >= 0
	if ok {
		m.tokens = left
	}
	return ok, max(new(big.Int).Div(m.tokens.Num(), m.tokens.Denom()).Int64(), 0)
}

// ticks is how many ticks n units below target take, rounded up.
func (m *bucketModel) ticks(target int64) int64 {
	missing := new(big.Rat).Sub(new(big.Rat).SetInt64(target), m.tokens)
	if missing.Sign() <= 0 {
		return 0
	}
	missing.Quo(missing, m.rate)
	up := new(big.Int).Add(missing.Num(), missing.Denom())
	return up.Sub(up, big.NewInt(1)).Div(up, missing.Denom()).Int64()
}

// fixedModel counts the admissions of the window that holds the tick.
type fixedModel struct {
	capacity, window int64
	log              []logged
}

func (m *fixedModel) take(tick, cost int64) (bool, int64) {
	begin := tick - tick%m.window
	return decide(&m.log, tick, cost, m.capacity, sum(m.log, begin-1, tick))
}

// logModel counts the admissions of (tick-W, tick].
type logModel fixedModel

func (m *logModel) take(tick, cost int64) (bool, int64) {
	return decide(&m.log, tick, cost, m.capacity, sum(m.log, tick-m.window, tick))
}

func decide(log *[]logged, tick, cost, capacity, used int64) (bool, int64) {
	if cost > 0 && used+cost > capacity {
		return false, capacity - used
	}
	*log = append(*log, logged{tick, cost})
	return true, capacity - used - cost
}

// slidingModel weighs the last window's admissions by how much of it the last W
// ticks still overlap, as a fraction.
type slidingModel fixedModel

func (m *slidingModel) take(tick, cost int64) (bool, int64) {
	begin := tick - tick%m.window
	left := new(big.Rat).SetInt64(m.capacity - sum(m.log, begin-1, tick))
	overlap := big.NewRat(begin+m.window-tick, m.window)
	left.Sub(left, overlap.Mul(overlap, new(big.Rat).SetInt64(sum(m.log, begin-m.window-1, begin-1))))
	after := new(big.Rat).Sub(left, new(big.Rat).SetInt64(cost))
	ok := cost == 0 || after.Sign() >= 0
	if ok {
		left = after
		m.log = append(m.log, logged{tick, cost})
	}
	return ok, max(new(big.Int).Div(left.Num(), left.Denom()).Int64(), 0)
}
