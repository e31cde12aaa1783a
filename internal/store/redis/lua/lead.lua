-- Lead asks whose turn it is to fetch an object: 0 the caller's, 1 another's, 2 what comes
-- is not kept. All keys lie in the URI's slot.
--
-- KEYS[1]  the lock: the lead's name behind 'g'; 'p': what comes is not kept; or 's' and a stamp:
--          an object of that stamp was kept a moment ago, so who has just missed it need
--          not fetch it again
-- KEYS[2]  the object
-- KEYS[3]  the number of the URI's last purge
-- ARGV[1]  the lead's name, if it becomes one; ARGV[2] for how many ms at most

local lock = redis.pcall('GET', KEYS[1])
if type(lock) == 'string' then
  local kind = string.sub(lock, 1, 1)
  if kind == 'p' then return 2 end
  if kind == 'g' then return 1 end
  local stamp = tonumber(string.sub(lock, 2))
  local mark = redis.pcall('GET', KEYS[3])
  if kind == 's' and stamp and type(mark) == 'string' and (tonumber(mark) or 2^53) <= stamp
    and redis.call('EXISTS', KEYS[2]) == 1 then
    return 1
  end
end
redis.call('SET', KEYS[1], 'g' .. ARGV[1], 'PX', ARGV[2]) -- over what has another type, too
return 0
