-- Changes tells what has changed since version ARGV[3] of the records whose id is
-- ARGV[2]: the version that there is; 0 when the keys of what has changed follow, 1
-- when it is not known any more, 2 when that version never was one of these records:
-- they were lost, or older ones were put in their place; and the id. id and keys stand
-- behind their lengths.

local MOST = 4000

local known = tonumber(ARGV[3])
local version = tonumber(call('HGET', head, 'version')) or 0
local floor = tonumber(call('HGET', head, 'floor')) or 0
local id = call('HGET', head, 'id') or ''

local state, keys = 0, {}
if known > 0 and (id ~= ARGV[2] or known > version) then
  state = 2
elseif known < floor then
  state = 1
elseif known > floor and known < version and call('ZCOUNT', log, ARGV[3], ARGV[3]) == 0 then
  state = 2 -- behind the floor all changes are known, and that one is none of them
elseif known < version then
  keys = call('ZRANGE', log, '(' .. ARGV[3], '+inf', 'BYSCORE', 'LIMIT', 0, MOST + 1)
  if #keys == 0 or #keys > MOST then state, keys = 1, {} end
end

local out = { pack('<dBI4c0', version, state, #id, id) }
for i = 1, #keys do
  local key = string.sub(keys[i], string.find(keys[i], '/', 1, true) + 1)
  out[i + 1] = pack('<I4c0', #key, key)
end
return table.concat(out)
