-- Marks KEYS[1], of a URI or a tag, with the number ARGV[1] of its purge. What is overtaken
-- need not be found and removed. Executed late it changes nothing.

local MARK = 600000 -- ms it lives at least, for objects under way that are put later

local mark = redis.pcall('GET', KEYS[1])
local known = type(mark) == 'string' and tonumber(mark) or 0
if known >= tonumber(ARGV[1]) then return 0 end
local lives = MARK
if known > 0 then lives = math.max(redis.call('PTTL', KEYS[1]), MARK) end
redis.call('SET', KEYS[1], ARGV[1], 'PX', string.format('%.0f', lives))
return 1
