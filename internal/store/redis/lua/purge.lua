-- Purge records the purges ARGV[3]: of each a byte of its kind, and the name behind its
-- length. The reply is the number of the first one, the others follow it.

local KEPT = 10000           -- purges in the log
local PREFIXES = 1024        -- more make a purge of all that is older
local PRUNE = 25 * 3600000000 -- µs; no object lives for so long

local PREFIX, ALL = 2, 3

local first = max(of('version') + 1, now)
local n, pos = first, 1
local told, prefixes, all = {}, {}, nil
while pos <= #ARGV[3] do
  local kind, name
  kind, name, pos = unpack('<BI4c0', ARGV[3], pos)
  told[#told + 1], told[#told + 2] = whole(n), whole(n) .. '/' .. string.char(kind) .. name
  if kind == PREFIX then
    prefixes[#prefixes + 1], prefixes[#prefixes + 2] = whole(n), name
  elseif kind == ALL then
    all = n
  end
  n = n + 1
end
if n == first then return pack('<d', 0) end

call('HSET', head, 'version', whole(n - 1))
for i = 1, #told, 512 do call('ZADD', log, spread(told, i, math.min(i + 511, #told))) end
local more = call('ZCARD', log) - KEPT
if more > 0 then
  local floor = call('ZRANGE', log, more - 1, more - 1, 'WITHSCORES')[2]
  call('ZREMRANGEBYSCORE', log, '-inf', floor)
  call('HSET', head, 'floor', floor)
end

if #prefixes > 0 then
  call('ZREMRANGEBYSCORE', wide, '-inf', whole(now - PRUNE))
  for i = 1, #prefixes, 512 do call('ZADD', wide, spread(prefixes, i, math.min(i + 511, #prefixes))) end
  local many = call('ZCARD', wide) - PREFIXES
  if many > 0 then
    local last = tonumber(call('ZRANGE', wide, many - 1, many - 1, 'WITHSCORES')[2])
    all = max(all or 0, of('all'), last)
  end
end
if all then
  call('HSET', head, 'all', whole(max(all, of('all'))))
  call('ZREMRANGEBYSCORE', wide, '-inf', whole(all))
end
redis.pcall('PUBLISH', log, whole(n - 1)) -- without the right to, others find it by asking
return pack('<d', first)
