-- Post charges each of KEYS its cost without asking, up to twice the capacity, or
-- gives back where the cost is negative. ARGV[3] has the cost behind each limit.
-- Concurrency counts whatever it is told, and is renewed by a cost of 0.

local pos = 1
for i = 1, #KEYS do
  local l, kind, cost
  l, kind, pos = limit(pos)
  cost, pos = unpack('<d', ARGV[3], pos)
  local s = kind.load(KEYS[i], l, 0)
  kind.post(s, l, cost)
  if s.dirty or s.rolled then kind.save(s, l) end
end
return ''
