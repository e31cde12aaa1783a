-- The sliding log: a list, first the sum of all costs and the tick of the last charge,
-- then a packed (tick, cost) for each, oldest first, at most cap/scale of them.

local log = {}

function log.load(key, l)
  local s = { key = key, tick = div(now, l.tick), sum = 0, n = 0, last = 0 }
  local text = call('LINDEX', key, 0)
  if not text then return s end
  s.sum, s.last = unpack('<dd', text)
  s.n = call('LLEN', key) - 1
  s.newest, s.cost = unpack('<dd', call('LINDEX', key, -1))
  if s.last > s.tick + max(l.window, 1000000 / l.tick) then log.rewind(s) end
  log.settle(s, l)
  return s
end

-- rewind: the clock was set back; what is from the future moves to now.
function log.rewind(s)
  s.last, s.newest = s.tick, min(s.newest, s.tick)
  call('LSET', s.key, 0, pack('<dd', s.sum, s.last))
  local all = call('LRANGE', s.key, 1, -1)
  for i = 1, #all do
    local tick, cost = unpack('<dd', all[i])
    if tick > s.tick then call('LSET', s.key, i, pack('<dd', s.tick, cost)) end
  end
end

-- settle drops what has left the window.
function log.settle(s, l)
  local last = s.tick - l.window -- that has left
  if s.newest <= last then
    call('DEL', s.key)
    s.sum, s.n = 0, 0
    return
  end
  local gone, size = 0, 1
  while true do
    local page = call('LRANGE', s.key, gone + 1, gone + size)
    for i = 1, #page do
      local tick, cost = unpack('<dd', page[i])
      if tick > last then
        if gone > 0 then
          call('LTRIM', s.key, gone, -1) -- the last one that has left makes room for the sum
          call('LSET', s.key, 0, pack('<dd', s.sum, s.last))
        end
        return
      end
      s.sum, s.n, gone = s.sum - cost, s.n - 1, gone + 1
    end
    size = min(2 * size, 128)
  end
end

function log.add(s, l, cost)
  s.last = max(s.last, s.tick)
  s.sum, s.dirty = s.sum + cost, true
  if s.n > 0 and (s.newest == s.last or s.n >= max(div(l.cap, l.scale), 1)) then
    s.newest, s.cost = s.last, s.cost + cost
  else
    s.n, s.newest, s.cost, s.new = s.n + 1, s.last, cost, true
  end
end

function log.save(s, l)
  if s.new and s.n == 1 then
    call('DEL', s.key)
    call('RPUSH', s.key, pack('<dd', s.sum, s.last), pack('<dd', s.newest, s.cost))
  else
    call('LSET', s.key, 0, pack('<dd', s.sum, s.last))
    if s.new then
      call('RPUSH', s.key, pack('<dd', s.newest, s.cost))
    else
      call('LSET', s.key, -1, pack('<dd', s.newest, s.cost))
    end
  end
  call('PEXPIRE', s.key, whole(millis(l, s.newest + l.window - s.tick) + KEEP))
end

function log.reset(s, l)
  if s.n == 0 then return 0 end
  return s.newest + l.window - s.tick
end

function log.take(s, l, cost)
  local left = l.cap - s.sum
  if cost == 0 then return true, max(left, 0), log.reset(s, l), 0, 0 end
  if cost > l.cap then return false, max(left, 0), log.reset(s, l), NEVER, 0 end
  if cost <= left then
    log.add(s, l, cost)
    return true, left - cost, log.reset(s, l), 0, 0
  end
  local need, i, tick, c = cost - left, 1, 0, 0 -- units that have to leave first
  while need > 0 do
    local page = call('LRANGE', s.key, i, i + 99)
    for j = 1, #page do
      tick, c = unpack('<dd', page[j])
      need = need - c
      if need <= 0 then break end
    end
    if #page == 0 then break end
    i = i + 100
  end
  return false, max(left, 0), log.reset(s, l), tick + l.window - s.tick, 0
end

function log.post(s, l, cost)
  if cost >= 0 then
    cost = max(min(cost, 2 * l.cap - s.sum), 0)
    if cost > 0 then log.add(s, l, cost) end
    return
  end
  -- Given back from the newest on: when it was taken, nobody says.
  local back = min(-cost, s.sum)
  if back == 0 then return end
  s.sum, s.dirty = s.sum - back, true
  while back > 0 and s.cost <= back do
    back, s.n = back - s.cost, s.n - 1
    call('RPOP', s.key)
    if s.n == 0 then
      call('DEL', s.key)
      s.dirty = nil
      return
    end
    s.newest, s.cost = unpack('<dd', call('LINDEX', s.key, -1))
  end
  s.cost = s.cost - back
end

kinds[4] = log
