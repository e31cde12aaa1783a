-- Token and leaky buckets: a string of doubles,
--   debt, tick                      no lease is out
--   debt, tick, held, first, last   leases are out; of their expiries the first and last
-- and a hash <key>:l of the leases: gateway → units, expiry (µs since EPOCH), and sent
-- of the settlement that wrote it.

local bucket = {}

-- load does R0 to R3 of meter.Pool.
function bucket.load(key, l, slack)
  local t = div(since, l.tick)
  local s = { key = key, tick = t, debt = 0, held = 0, first = 0, last = 0 }
  local text = call('GET', key)
  if not text then return s end
  if #text == 16 then
    s.debt, s.tick = unpack('<dd', text)
  else
    s.debt, s.tick, s.held, s.first, s.last = unpack('<ddddd', text)
    s.rolled = true -- what leases keep from leaking depends on when it is looked at
  end
  -- Above the capacity a step back of the clock adds nothing, so it matters whether
  -- one comes before what leaks or behind it.
  s.rolled = s.rolled or s.debt > (l.cap + l.queue) * l.den
  if t < s.tick then
    bucket.rewind(s, l, t)
  end
  if s.held > 0 and since >= s.first then
    bucket.expire(s, l, slack)
  end
  bucket.leak(s, l, t, slack)
  s.rolled = s.rolled or s.debt == 0
  s.before = s.debt
  return s
end

-- undo takes back what take charged.
function bucket.undo(s) s.debt = s.before end

-- rewind: the clock was set back.
function bucket.rewind(s, l, t)
  s.debt = max(s.debt, min((l.cap + l.queue) * l.den, s.debt + (s.tick - t) * l.num))
  s.tick, s.rolled = t, true
  local most = since + LIFETIME
  s.first, s.last = min(s.first, most), min(s.last, most)
  if s.held == 0 then return end
  local all = call('HGETALL', s.key .. ':l')
  for i = 1, #all, 2 do
    local units, expiry, sent = unpack('<ddd', all[i + 1])
    if expiry > most then
      call('HSET', s.key .. ':l', all[i], pack('<ddd', units, most, sent))
    end
  end
end

-- expire: leases that are over are forgotten, their units lost.
function bucket.expire(s, l, slack)
  local all = call('HGETALL', s.key .. ':l')
  local over, left, first, last, latest = {}, 0, nil, 0, nil
  for i = 1, #all, 2 do
    local units, expiry = unpack('<dd', all[i + 1])
    if expiry <= since then
      over[#over + 1] = all[i]
      latest = max(latest or expiry, expiry)
    else
      left = left + units
      first = min(first or expiry, expiry)
      last = max(last, expiry)
    end
  end
  if #all == 0 then latest = s.last end -- the hash itself has expired
  if latest then
    bucket.leak(s, l, div(latest, l.tick), slack)
    for i = 1, #over do call('HDEL', s.key .. ':l', over[i]) end
    s.held, s.last = left, last
  end
  s.first = first or 0
end

-- leak refills up to t, but for what leases hold above slack.
function bucket.leak(s, l, t, slack)
  local least = min(s.debt, min(max(0, s.held - slack), 2 * l.cap) * l.den)
  s.debt = max(least, s.debt - (t - s.tick) * l.num)
  s.tick = max(s.tick, t)
end

function bucket.save(s, l)
  local ms = millis(l, ceil(s.debt, l.num)) + KEEP
  if s.held > 0 then
    ms = max(ms, ceil(s.last - since, 1000)) + KEEP
    set(s.key, pack('<ddddd', s.debt, s.tick, s.held, s.first, s.last), ms)
    call('PEXPIRE', s.key .. ':l', whole(ms))
  elseif s.debt == 0 then
    call('DEL', s.key)
  else
    set(s.key, pack('<dd', s.debt, s.tick), ms)
  end
end

function bucket.reset(s, l) return ceil(s.debt, l.num) end

-- take returns whether the cost fits, what remains, and reset, retry and delay in
-- ticks.
function bucket.take(s, l, cost)
  if cost > 0 then
    if cost > l.cap + l.queue then
      return false, bucket.free(s, l), bucket.reset(s, l), NEVER, 0
    end
    local over = s.debt - (l.cap + l.queue) * l.den + cost * l.den
    if over > 0 then
      return false, bucket.free(s, l), bucket.reset(s, l), ceil(over, l.num), 0
    end
    s.debt = s.debt + cost * l.den
    s.dirty = true
  end
  local delay = 0
  if cost > 0 and l.queue > 0 then
    delay = ceil(max(s.debt - l.cap * l.den, 0), l.num)
  end
  return true, bucket.free(s, l), bucket.reset(s, l), 0, delay
end

function bucket.post(s, l, cost)
  local most = 2 * l.cap + l.queue
  bucket.charge(s, l, min(max(cost, -most), most))
  s.dirty = true
end

function bucket.free(s, l) return max(l.cap - ceil(s.debt, l.den), 0) end

-- charge adds n units, which may be negative; what is added goes no further than
-- twice the capacity.
function bucket.charge(s, l, n)
  s.debt = max(min(s.debt + n * l.den, max(s.debt, 2 * l.cap * l.den)), 0)
end

-- lease is a gateway's record: units and sent.
function bucket.lease(_, record)
  local units, _, sent = unpack('<ddd', record)
  return units, sent
end

-- back takes back what a gateway gives, and returns what it had and now holds. What
-- it has and the pool had given up is charged again.
function bucket.back(s, l, had, hold, give)
  bucket.charge(s, l, max(hold + give - had, 0) - give)
  return had, hold
end

-- lend notes that a lease has changed by so many units, to has, and returns when it
-- expires.
function bucket.lend(s, change, has)
  local expiry = since + LIFETIME
  s.held = s.held + change
  if has > 0 then
    if s.first == 0 then s.first = expiry end
    s.first, s.last = min(s.first, expiry), max(s.last, expiry)
  elseif s.held == 0 then
    s.first, s.last = 0, 0
  end
  return expiry
end

kinds[0], kinds[1] = bucket, bucket
