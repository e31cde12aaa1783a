-- Fixed and sliding windows: a string of doubles,
--   index, cur [, prev [, 1]]       the 1: leases are out
-- and a hash <key>:l of the leases: gateway → units, the index they were granted
-- in, and sent of the settlement that wrote it.

local window = {}

-- load does R0 of meter.Pool.
function window.load(key, l)
  local s = { key = key, cur = 0, prev = 0, leased = 0 }
  local tick = div(now, l.tick)
  if l.window > 0 then
    s.index = div(tick, l.window)
    s.left = (s.index + 1) * l.window - tick
  else
    s.index, s.left = l.index, l.left
  end
  local text = call('GET', key)
  if not text then return s end
  local index
  if #text == 16 then
    index, s.cur = unpack('<dd', text)
  elseif #text == 24 then
    index, s.cur, s.prev = unpack('<ddd', text)
  else
    index, s.cur, s.prev, s.leased = unpack('<dddd', text)
  end
  if index ~= s.index then
    s.rolled = true
    if index < s.index then
      if index + 1 == s.index then s.prev = s.cur else s.prev = 0 end
      s.cur = 0
    end
    -- The leases are over, but for those of a sliding window's last window.
    if s.leased > 0 and (l.alg == 2 or index + 1 ~= s.index) then
      call('DEL', key .. ':l')
      s.leased = 0
    end
  end
  if l.alg == 2 then s.prev = 0 end
  s.before = s.cur
  return s
end

-- undo takes back what take charged.
function window.undo(s) s.cur = s.before end

function window.save(s, l)
  local ms = s.left * l.tick
  if l.alg == 3 then ms = ms + l.window * l.tick end
  ms = ceil(ms, 1000) + KEEP
  if l.window == 0 then ms = ms + 3600000 end -- the gateways' clocks may differ
  if s.leased > 0 then
    set(s.key, pack('<dddd', s.index, s.cur, s.prev, 1), ms)
    call('PEXPIRE', s.key .. ':l', whole(ms))
  elseif s.cur == 0 and s.prev == 0 then
    call('DEL', s.key)
  elseif s.prev == 0 then
    set(s.key, pack('<dd', s.index, s.cur), ms)
  else
    set(s.key, pack('<ddd', s.index, s.cur, s.prev), ms)
  end
end

-- used is units × window of a sliding window.
function window.used(s, l) return s.cur * l.window + s.prev * s.left end

function window.free(s, l)
  if l.alg == 2 then return max(l.cap - s.cur, 0) end
  return div(max(l.cap * l.window - window.used(s, l), 0), l.window)
end

-- slid is after how many ticks a refused cost fits: the first tick e at which
-- cur·W + prev·(W-e) + cost·W ≤ cap·W, in this window or, where cur has become
-- prev, in the next.
function window.slid(s, l, cost)
  local w, free = l.window, l.cap - cost
  if s.cur <= free and s.prev > 0 then
    local e = w - div((free - s.cur) * w, s.prev)
    if e < w then return e - (w - s.left) end
  end
  if s.cur <= free then return s.left end
  return s.left + w - div(free * w, s.cur)
end

function window.take(s, l, cost)
  local fits
  if l.alg == 2 then
    fits = cost <= l.cap - s.cur
  else
    fits = cost <= l.cap and l.cap * l.window - window.used(s, l) - cost * l.window >= 0
  end
  if cost > 0 and not fits then
    local retry = s.left
    if cost > l.cap then
      retry = NEVER
    elseif l.alg == 3 then
      retry = window.slid(s, l, cost)
    end
    return false, window.free(s, l), s.left, retry, 0
  end
  if cost > 0 then
    s.cur = s.cur + cost
    s.dirty = true
  end
  return true, window.free(s, l), s.left, 0, 0
end

function window.post(s, l, cost)
  window.charge(s, l, cost)
  s.dirty = true
end

-- charge adds n units, which may be negative; what is added goes no further than
-- twice the capacity.
function window.charge(s, l, n)
  s.cur = max(min(s.cur + n, max(s.cur, 2 * l.cap)), 0)
end

function window.reset(s) return s.left end

-- lease is a gateway's record, of this window or the last one: units and sent.
function window.lease(s, record)
  local units, index, sent = unpack('<ddd', record)
  if index ~= s.index and index + 1 ~= s.index then return 0, 0 end
  s.old = index ~= s.index
  return units, sent
end

-- back takes back what a gateway gives, no more than it was granted, and returns
-- what it had of this window and now holds.
function window.back(s, l, had, hold, give)
  if s.old then
    s.prev = max(s.prev - min(give, had), 0)
    had = 0
  end
  if had == 0 then hold = 0 end
  window.charge(s, l, -min(give, max(had - hold, 0)))
  return had, hold
end

-- lend notes that there are leases, and returns which window they belong to.
function window.lend(s, _, has)
  if has > 0 then s.leased = 1 end
  return s.index
end

kinds[2], kinds[3] = window, window
