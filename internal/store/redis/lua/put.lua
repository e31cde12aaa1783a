-- Put gives an object, that was written to a key of its own, its place, unless a purge has
-- overtaken it. The value passes by here, because Lua would copy it. All keys lie in the
-- URI's slot.
--
-- KEYS[1]  the object      KEYS[2]  the number of the URI's last purge
-- KEYS[3]  the lock, see lead.lua         KEYS[4]  where the value is
-- ARGV[1]  the stamp; ARGV[2] the object's life, ms; ARGV[3] the name of the lead that ends; ''
--
-- Reply: 0 a purge has overtaken it, 1 kept, 2 the server has no room for it, 3 the value is
-- not there; and 16 more when a key of another type was removed.

local RECENT = 250       -- ms that others hear of it who have missed it just before
local MARK = 600000      -- ms that a mark lives at least
local FULL = 0.9         -- of maxmemory, where the rest is for what is not evicted

local stamp, life = tonumber(ARGV[1]), tonumber(ARGV[2])
local healed = 0

local mark = redis.pcall('GET', KEYS[2])
if type(mark) == 'table' then
  redis.call('DEL', KEYS[2])
  mark, healed = false, 16
end

-- full tells whether the server, which evicts nothing, should keep the rest of its memory for
-- limits and records.
local function full()
  local info = redis.pcall('INFO', 'memory')
  if type(info) ~= 'string' or not string.find(info, 'maxmemory_policy:noeviction', 1, true) then return false end
  local most = tonumber(string.match(info, '[\r\n]maxmemory:(%d+)')) or 0
  local used = tonumber(string.match(info, 'used_memory:(%d+)')) or 0
  return most > 0 and used > FULL * most
end

local result = 1
if mark and (tonumber(mark) or 2^53) > stamp then
  result = 0
elseif redis.call('EXISTS', KEYS[4]) == 0 then
  result = 3
elseif full() then
  result = 2
end

local mine = ARGV[3] ~= '' and redis.pcall('GET', KEYS[3]) == 'g' .. ARGV[3]
if result ~= 1 then
  redis.call('DEL', KEYS[4])
  if mine then redis.call('DEL', KEYS[3]) end
  return result + healed
end

redis.call('RENAME', KEYS[4], KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local lives = math.max(life + 1000, MARK)
if not mark then
  -- Not 0: one that was evicted may have been as high, and older variants may be left.
  redis.call('SET', KEYS[2], ARGV[1], 'PX', string.format('%.0f', lives))
elseif redis.call('PTTL', KEYS[2]) < lives then
  redis.call('PEXPIRE', KEYS[2], string.format('%.0f', lives))
end
if mine then redis.call('SET', KEYS[3], 's' .. ARGV[1], 'PX', RECENT) end
return 1 + healed
