-- Apply makes changes, all or none. ARGV[2] is the id that records have which are made
-- anew, ARGV[3] the changes: the version that must be there or -1, the expiry, 1 or 0
-- whether there is a value, and key and value behind their lengths. The reply is the
-- version, or minus the place of the change whose record has another one. Nothing is
-- taken back when a command fails, so each of KEYS is read before the first is written:
-- one of another type, or a right that is missing, is seen in time.

local SWEEP, KEPT = 512, 10000 -- expired records that one call removes; changes that are kept

local changes, pos = {}, 1
while pos <= #ARGV[3] do
  local c = {}
  c.want, c.ends, c.put, c.key, c.value, pos = unpack('<ddBI4c0I4c0', ARGV[3], pos)
  local _, version, old = fetch(c.key)
  c.old = old
  changes[#changes + 1] = c
  if c.want >= 0 and c.want ~= version then return pack('<d', -#changes) end
end

local gone = call('ZRANGE', expiry, '-inf', whole(now), 'BYSCORE', 'LIMIT', 0, SWEEP)
local more = call('ZCARD', log) + #changes - KEPT
local version = max((tonumber(call('HGET', head, 'version')) or 0) + 1, now)
if not call('HGET', head, 'id') then call('HSET', head, 'id', ARGV[2]) end
call('HSET', head, 'version', whole(version))

local function drop(key)
  if call('HDEL', data, key) == 1 then call('ZREM', index, key) end
  call('ZREM', expiry, key)
end

for i = 1, #gone do drop(gone[i]) end
local latest, told = whole(version), {}
for i = 1, #changes do
  local c = changes[i]
  if c.put == 0 then
    drop(c.key)
  else
    if call('HSET', data, c.key, pack('<dd', version, c.ends) .. c.value) == 1 then call('ZADD', index, 0, c.key) end
    if c.ends > 0 then
      call('ZADD', expiry, whole(c.ends), c.key)
    elseif (c.old or 0) > 0 then
      call('ZREM', expiry, c.key)
    end
  end
  told[2 * i - 1], told[2 * i] = latest, latest .. '/' .. c.key
end
call('ZADD', log, spread(told))

if more > 0 then
  local floor = call('ZRANGE', log, more - 1, more - 1, 'WITHSCORES')[2]
  call('ZREMRANGEBYSCORE', log, '-inf', floor)
  call('HSET', head, 'floor', floor)
end
redis.pcall('PUBLISH', data, latest) -- without the right to, others find it by asking
return pack('<d', version)
