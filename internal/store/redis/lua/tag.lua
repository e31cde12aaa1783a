-- Before an object of stamp ARGV[1] is kept for ARGV[2] ms, KEYS[1], the number of the last
-- purge of one of its tags, is made where it is missing, and made to live as long. The
-- reply is 0 when that purge has overtaken the object.

local mark = redis.pcall('GET', KEYS[1])
local lives = math.max(tonumber(ARGV[2]) + 1000, 600000)
if type(mark) ~= 'string' then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', string.format('%.0f', lives)) -- see put.lua
  return 1
end
if (tonumber(mark) or 2^53) > tonumber(ARGV[1]) then return 0 end
if redis.call('PTTL', KEYS[1]) < lives then redis.call('PEXPIRE', KEYS[1], string.format('%.0f', lives)) end
return 1
