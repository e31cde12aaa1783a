-- Members keeps who is alive: KEYS[1] is a sorted set of gateways by when they are
-- taken for gone (Unix ms). ARGV[1] is the time as ever, ARGV[2] the gateway,
-- ARGV[3] for how many ms it is alive; 0: it leaves. The reply is how many are.

local now
if ARGV[1] == '' then
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
else
  now = math.floor(tonumber(ARGV[1]) / 1000)
end
local life = tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
if life > 0 then
  redis.call('ZADD', KEYS[1], string.format('%.0f', now + life), ARGV[2])
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', 10 * life))
else
  redis.call('ZREM', KEYS[1], ARGV[2])
end
return redis.call('ZCARD', KEYS[1])
