-- What the scripts share: the time, exact division, and the state of one counter.
-- The arithmetic is that of internal/limit/meter, step for step: buckets and
-- windows as meter.Pool has them, the log as meter.Cell has it. All numbers are
-- whole and below 2^53, where doubles are exact. A script is this file, the kinds of
-- counters it needs (bucket, window, log, slots) and what it does (take, post,
-- settle): Redis runs all of it at every call, so the less the better.
--
-- ARGV[1]  now, Unix µs; '' in production: the server's own clock
-- ARGV[2]  the gateway that asks
-- ARGV[3]  what is asked of each of KEYS, packed as doubles: the limit (8), then
--          the number of the calendar period and the ticks until its end (0 for
--          other limits), then what the script says
--
-- A kind has load (the state at now), take, post and save, and for leases free and
-- charge. A state is dirty when it has to be saved, and rolled when it has to be
-- saved even if nothing is charged.

local call, pack, unpack = redis.call, struct.pack, struct.unpack
local floor, min, max = math.floor, math.min, math.max

local EPOCH = 1735689600000000                   -- 2025-01-01T00:00:00Z
local LATEST = EPOCH + 55 * 8766 * 3600 * 1000000 -- later times count as this one
local LIFETIME = 2000000                         -- of a lease, µs
local NEVER = -1
local KEEP = 1000                                -- ms that keys outlive their use

local kinds = {} -- by meter.Algorithm

local now
if ARGV[1] == '' then
  local t = call('TIME')
  now = t[1] * 1000000 + t[2]
else
  now = tonumber(ARGV[1])
  KEEP = 60000 -- the test's time is not the server's
end
now = max(min(now, LATEST), 0)
local since = max(now - EPOCH, 0)

-- div is a/b rounded down, ceil rounded up; exact where a division of doubles may
-- round a quotient just below a whole number up to it.
local function div(a, b)
  local q = floor(a / b)
  if q * b > a then return q - 1 end
  return q
end

local function ceil(a, b)
  local q = div(a, b)
  if q * b < a then return q + 1 end
  return q
end

local function whole(x) return string.format('%.0f', x) end

local function set(key, value, ms)
  call('SET', key, value, 'PX', whole(min(ms, 4e12)))
end

-- millis is n ticks in ms, rounded up.
local function millis(l, n) return ceil(n * l.tick, 1000) end

-- limit reads what ARGV[3] says of one key: the limit, and where the rest begins.
local function limit(pos)
  local l = {}
  l.alg, l.cap, l.queue, l.num, l.den, l.tick, l.window, l.scale, l.index, l.left, pos =
    unpack('<dddddddddd', ARGV[3], pos)
  return l, kinds[l.alg], pos
end
