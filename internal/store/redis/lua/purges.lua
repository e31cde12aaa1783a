-- What the scripts of purges share. A deployment's purges lie in one slot:
--
-- KEYS[1]  a hash: "id" of the log's life; "version", the number of the last purge;
--          "floor", the last that may be missing in KEYS[2]; "all", what has a lower stamp
--          is not valid; "lost", when it was found that purges were lost (Unix µs)
-- KEYS[2]  a sorted set of the last purges, number/kind and name, by number; also the channel
-- KEYS[3]  a sorted set of the prefixes purged, by the number of the last purge
-- KEYS[4]  a hash: gateway → the number it has applied and when it was heard of (Unix ms)
--
-- ARGV[1]  now, Unix µs; '' in production: the server's own clock
-- ARGV[2]  an id for a new life
--
-- Numbers are Unix µs, or one more than the last where the clock is behind that, so none
-- is used twice though all is lost. When purges were lost a new life begins: no object
-- of an earlier one is valid. Nothing here has a TTL.

local call, pack, spread, unpack = redis.call, struct.pack, unpack, struct.unpack
local max = math.max

local head, log, wide, seen = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local now
if ARGV[1] == '' then
  local t = call('TIME')
  now = t[1] * 1000000 + t[2]
else
  now = tonumber(ARGV[1])
end

local function whole(x) return string.format('%.0f', x) end
local function of(field) return tonumber(call('HGET', head, field) or '') or 0 end

local function begin(known)
  local start = whole(max(now, of('version') + 1, known + 1))
  call('DEL', log, wide)
  call('HSET', head, 'id', ARGV[2], 'version', start, 'floor', start, 'all', start)
end

-- What has another type is not ours: it goes, and with it what the rest was worth.
local sound = true
for i, command in ipairs({ 'HLEN', 'ZCARD', 'ZCARD', 'HLEN' }) do
  local r = redis.pcall(command, KEYS[i])
  if type(r) == 'table' then
    if not string.find(r.err, 'WRONGTYPE', 1, true) then call(command, KEYS[i]) end -- fails again
    call('DEL', KEYS[i])
    sound = false
  end
end
local id = call('HGET', head, 'id')
if not sound or not id or #id ~= #ARGV[2] or of('version') == 0 then
  begin(0)
  id = ARGV[2]
end
