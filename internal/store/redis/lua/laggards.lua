-- Laggards are the gateways that have not applied a purge, with spaces between; and no more
-- than 20 of them. ARGV[3] is its number, as a double, and the name of the gateway that asks
-- behind its length: she is one of them until she has asked what was purged. Who has not
-- been heard of for 10 s is forgotten. When purges were lost, nobody knows for 3 s who will
-- come back.

local GONE = 10000 -- ms
local BACK = 3000000 -- µs

local number, hers = unpack('<dI4c0', ARGV[3])
local out = {}
if not call('HGET', seen, hers) then out[1] = hers end
if now - of('lost') < BACK then out[#out + 1] = '(those that come back)' end
local all = call('HGETALL', seen)
for i = 1, #all, 2 do
  local applied, heard
  if #all[i + 1] == 16 then applied, heard = unpack('<dd', all[i + 1]) end
  if not heard or heard < now / 1000 - GONE then
    call('HDEL', seen, all[i])
  elseif applied < number and #out < 20 then
    out[#out + 1] = all[i]
  end
end
return table.concat(out, ' ')
