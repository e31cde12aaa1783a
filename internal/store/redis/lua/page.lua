-- Page returns some of the records whose keys lie between ARGV[2] and ARGV[3], bounds as
-- ZRANGE BYLEX has them, in order: 1 or 0 whether there may be more and the last key that
-- was looked at; then each record, its key and what is kept, all behind their lengths.

local KEYS_AT_ONCE, SIZE = 256, 262144 -- bytes

local keys = call('ZRANGE', index, ARGV[2], ARGV[3], 'BYLEX', 'LIMIT', 0, KEYS_AT_ONCE)
local out, size, n = {}, 0, 0
while n < #keys and size < SIZE do
  n = n + 1
  local text = fetch(keys[n])
  if text then
    out[#out + 1] = pack('<I4c0I4c0', #keys[n], keys[n], #text, text)
    size = size + #out[#out]
  end
end
local more = 0
if n < #keys or n == KEYS_AT_ONCE then more = 1 end
local last = keys[n] or ''
return pack('<BI4c0', more, #last, last) .. table.concat(out)
