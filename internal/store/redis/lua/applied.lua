-- Applied notes how far a gateway is, and tells it what has been purged since, in one step:
-- so a purge either is told to it here, or finds that it has not applied it. ARGV[3] is
-- the number it has applied, as a double, the id of that number's life and the gateway's
-- name, both behind their lengths. An empty name notes nothing; -1 as the number removes
-- the gateway.
--
-- Reply: the latest number (double); 0 when what was purged follows, 1 when that is not known
-- any more, 2 when that number is none of this life's; the life's id behind its length. Then
-- behind 0 the purges, of each its number (double), kind (a byte) and name behind its length;
-- behind 1 and 2 the number below which nothing is valid (double) and the prefixes, of each
-- its number (double) and itself behind its length.

local MOST = 4000

local known, hers, gateway = unpack('<dI4c0I4c0', ARGV[3])
if known < 0 then
  call('HDEL', seen, gateway)
  return ''
end
local version, floor = of('version'), of('floor')
local state, purges = 0, {}
if known == 0 then
  state = 1
elseif hers ~= id then
  if known >= version then begin(known) end -- the clock was set back: stamps may not fall
  state, id, version = 2, call('HGET', head, 'id'), of('version')
elseif known > version or known > floor and call('ZCOUNT', log, whole(known), whole(known)) == 0 then
  -- Purges were lost that she has applied: what they have made invalid must not come back.
  begin(known)
  state, id, version = 2, ARGV[2], of('version')
elseif known < floor then
  state = 1
elseif known < version then
  purges = call('ZRANGE', log, '(' .. whole(known), '+inf', 'BYSCORE', 'LIMIT', 0, MOST + 1)
  if #purges == 0 or #purges > MOST then state, purges = 1, {} end
end

if state == 2 then call('HSET', head, 'lost', whole(now)) end
if gateway ~= '' then
  local noted = call('HGET', seen, gateway)
  local before = noted and #noted == 16 and unpack('<d', noted) or 0
  call('HSET', seen, gateway, pack('<dd', max(known, before), math.floor(now / 1000))) -- a late one takes nothing back
end

local out = { pack('<dBI4c0', version, state, #id, id) }
if state == 0 then
  for i = 1, #purges do
    local at = string.find(purges[i], '/', 1, true)
    local name = string.sub(purges[i], at + 2)
    out[i + 1] = pack('<dBI4c0', tonumber(string.sub(purges[i], 1, at - 1)), string.byte(purges[i], at + 1), #name, name)
  end
else
  out[2] = pack('<d', of('all'))
  local prefixes = call('ZRANGE', wide, 0, -1, 'WITHSCORES')
  for i = 1, #prefixes, 2 do
    out[#out + 1] = pack('<dI4c0', tonumber(prefixes[i + 1]), #prefixes[i], prefixes[i])
  end
end
return table.concat(out)
