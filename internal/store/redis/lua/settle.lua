-- Settle takes back and grants leases, for each of KEYS by itself. ARGV[3] has
-- hold, give, need, ask, slack and sent behind each limit. The reply is four doubles
-- a key: units granted, units left in the pool, and reset and retry in ticks; then
-- what could not be done.

local function settle(key, l, kind, hold, give, need, ask, slack, sent)
  local s = kind.load(key, l, slack)
  local leases = key .. ':l'

  local had, known, record = 0, 0, call('HGET', leases, ARGV[2])
  if record then had, known = kind.lease(s, record) end
  -- One that a later one has overtaken, or that comes twice, changes nothing.
  local late = sent > 0 and known >= sent
  if not late then had, hold = kind.back(s, l, had, hold, give) end

  local free = kind.free(s, l)
  local granted = min(ask, max(need, div(free, 2), free - div(l.cap, 400), 1), free)
  if granted < need or late then granted = 0 end
  local retry, _ = 0, nil
  if granted == 0 and ask > 0 then
    _, _, _, retry = kind.take(s, l, max(need, 1)) -- refuses, as more than granted is not free
    if late then kind.undo(s) end -- or else may not
  end
  if not late then
    kind.charge(s, l, granted)
    local has = hold + granted
    local ends = kind.lend(s, has - had, has)
    if has > 0 then
      call('HSET', leases, ARGV[2], pack('<ddd', has, ends, sent))
    elseif record then
      call('HDEL', leases, ARGV[2])
    end
  end
  kind.save(s, l)
  return pack('<dddd', granted, free - granted, kind.reset(s, l), retry)
end

local out, bad, pos = {}, {}, 1
for i = 1, #KEYS do
  local l, kind, hold, give, need, ask, slack, sent
  l, kind, pos = limit(pos)
  hold, give, need, ask, slack, sent, pos = unpack('<dddddd', ARGV[3], pos)
  out[i] = attempt(bad, i, function()
    return settle(KEYS[i], l, kind, hold, give, need, ask, slack, sent)
  end) or pack('<dddd', 0, 0, 0, 0)
end
return table.concat(out) .. table.concat(bad)
