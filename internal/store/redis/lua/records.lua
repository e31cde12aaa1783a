-- What the scripts of records share. A deployment's records lie in one slot:
--
-- KEYS[1]  a hash: key → version and expiry as doubles (Unix µs, 0: never), and the value
-- KEYS[2]  a sorted set of all keys, each with score 0: for reading them in order
-- KEYS[3]  a sorted set of those that expire, by when they do
-- KEYS[4]  a sorted set of the latest changes, version/key, by version
-- KEYS[5]  a hash: "version" is the latest one; "floor" the latest whose changes may be
--          missing in KEYS[4]; "id" was chosen when the first record was made
--
-- ARGV[1]  now, Unix µs; '' in production: the server's own clock
--
-- Nothing here has a TTL. What has expired is there for nobody, and Apply removes it.

local call, pack, spread, unpack = redis.call, struct.pack, unpack, struct.unpack
local max = math.max

local data, index, expiry, log, head = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

local now
if ARGV[1] == '' then
  local t = call('TIME')
  now = t[1] * 1000000 + t[2]
else
  now = tonumber(ARGV[1])
end

-- A part that was evicted or deleted must not look like records that were removed.
if call('HLEN', data) ~= call('ZCARD', index) then
  error('records are damaged: ' .. data .. ' and ' .. index .. ' do not belong together')
end

local function whole(x) return string.format('%.0f', x) end

-- fetch returns what is kept under a key, as it stands there, and its version; nothing
-- and 0 when it has expired; then, in any case, its expiry, nil when nothing is kept.
local function fetch(key)
  local text = call('HGET', data, key)
  if not text then return nil, 0, nil end
  local version, ends = unpack('<dd', text)
  if ends ~= 0 and ends <= now then return nil, 0, ends end
  return text, version, ends
end
