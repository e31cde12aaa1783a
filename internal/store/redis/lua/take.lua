-- Take charges each of KEYS its cost, or none of them when one refuses. ARGV[3]
-- has the cost behind each limit. The reply is five doubles a key: whether it
-- fits, what remains, and reset, retry and delay in ticks. A key that comes twice
-- is charged twice.

local states, out, fits, pos = {}, {}, true, 1
for i = 1, #KEYS do
  local l, kind, cost
  l, kind, pos = limit(pos)
  cost, pos = unpack('<d', ARGV[3], pos)
  local s = states[KEYS[i]]
  if not s then
    s = kind.load(KEYS[i], l, 0)
    s.l, s.kind = l, kind
    states[KEYS[i]] = s
  end
  local ok, remaining, reset, retry, delay = kind.take(s, l, cost)
  fits = fits and ok
  out[i] = pack('<ddddd', ok and 1 or 0, remaining, reset, retry, delay)
end
for _, s in pairs(states) do
  if not fits and s.rolled then s.kind.undo(s) end
  if s.rolled or fits and s.dirty then s.kind.save(s, s.l) end
end
return table.concat(out)
