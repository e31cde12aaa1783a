-- Post charges each of KEYS its cost without asking, up to twice the capacity, or
-- gives back where the cost is negative. ARGV[3] has behind each limit the cost and
-- whether it is whole. Concurrency counts whatever it is told: what is added, or, when
-- it is whole, what the gateway has; a cost of 0 renews it.

local bad, pos = {}, 1
for i = 1, #KEYS do
  local l, kind, cost, whole
  l, kind, pos = limit(pos)
  cost, whole, pos = unpack('<dd', ARGV[3], pos)
  attempt(bad, i, function()
    local s = kind.load(KEYS[i], l, 0)
    if whole == 1 then kind.set(s, cost) else kind.post(s, l, cost) end
    if s.dirty or s.rolled then kind.save(s, l) end
  end)
end
return table.concat(bad)
