-- Release ends the lead of name ARGV[1], '' for none, in KEYS[1]. For ARGV[2] ms, if that is more
-- than 0, others are told not to wait: also when its lead had ended and nobody else has
-- it. The reply is 1 when that was noted or the lead ended.

local lock = redis.pcall('GET', KEYS[1])
local mine = lock == 'g' .. ARGV[1]
if tonumber(ARGV[2]) > 0 and (mine or not lock) then
  redis.call('SET', KEYS[1], 'p', 'PX', ARGV[2])
elseif mine then
  redis.call('DEL', KEYS[1])
else
  return 0
end
return 1
