-- Concurrency: a hash, gateway → units at work, and when they stop to count unless
-- renewed (µs since EPOCH). For the gateway that asks its own count whatever the
-- time.

local SLOTS = 10000000 -- life of a gateway's units, µs

local slots = {}

function slots.load(key)
  local s = { key = key, own = 0, used = 0 }
  local all = call('HGETALL', key)
  for i = 1, #all, 2 do
    local units, expiry = unpack('<dd', all[i + 1])
    if all[i] == ARGV[2] then
      s.own, s.expiry = units, expiry
      s.used = s.used + units
    elseif expiry > since then
      s.used = s.used + units
    elseif expiry + 6 * SLOTS < since then
      call('HDEL', key, all[i])
    end
  end
  return s
end

function slots.take(s, l, cost)
  local left = l.cap - s.used
  if cost > 0 then
    if cost > l.cap then return false, max(left, 0), 0, NEVER, 0 end
    if cost > left then return false, max(left, 0), 0, ceil(1000000, l.tick), 0 end
    slots.post(s, l, cost)
    left = left - cost
  end
  return true, max(left, 0), 0, 0, 0
end

function slots.post(s, l, cost) slots.set(s, s.own + cost) end

-- set has the gateway have n units.
function slots.set(s, n)
  local own = max(n, 0)
  s.used = s.used + own - s.own
  s.own, s.dirty = own, true
end

function slots.save(s)
  if s.own == 0 then
    call('HDEL', s.key, ARGV[2])
  else
    call('HSET', s.key, ARGV[2], pack('<dd', s.own, since + SLOTS))
    call('PEXPIRE', s.key, whole(6 * SLOTS / 1000 + KEEP))
  end
end

kinds[5] = slots
