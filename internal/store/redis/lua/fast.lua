-- Take, for what is asked most: buckets and windows, on a clock that goes forward, no
-- lease out, each key once. It is take.lua on head.lua, bucket.lua and window.lua in
-- one piece: Redis runs every definition at every call, and without them it takes
-- two thirds of the time, or half with several kinds. What it cannot decide it
-- leaves alone and answers '': take.lua is asked then.
--
-- KEYS, ARGV and the reply are those of take.lua.

local call, pack, unpack = redis.call, struct.pack, struct.unpack
local floor = math.floor

local function div(a, b)
  local q = floor(a / b)
  if q * b > a then return q - 1 end
  return q
end

local function ceil(a, b)
  local q = floor(a / b)
  if q * b > a then q = q - 1 end
  if q * b < a then return q + 1 end
  return q
end

local now, keep
if ARGV[1] == '' then
  local t = call('TIME')
  now, keep = t[1] * 1000000 + t[2], 1000
else
  now, keep = tonumber(ARGV[1]), 60000
end
local since = now - 1735689600000000
if since < 0 or now > 3471357600000000 then return '' end

-- rolled: take.lua saves the state even if nothing is charged; rest: nothing is.
local out, values, lives, fits, rolled, rest, pos = {}, {}, {}, true, false, false, 1
for i = 1, #KEYS do
  local alg, cap, queue, num, den, tick, window, _, index, left, cost
  alg, cap, queue, num, den, tick, window, _, index, left, cost, pos = unpack('<ddddddddddd', ARGV[3], pos)
  local text = call('GET', KEYS[i])
  local ok, remaining, reset, retry, delay = true, 0, 0, 0, 0
  if alg < 2 then
    local t, debt, top = div(since, tick), 0, (cap + queue) * den
    if text then
      if #text ~= 16 then return '' end
      local last
      debt, last = unpack('<dd', text)
      if last > t or debt > top then return '' end
      debt = debt - (t - last) * num
      if debt <= 0 then
        debt = 0
        rolled, rest = true, rest or cost == 0
      end
    end
    if cost > 0 then
      local over = debt - top + cost * den
      if cost > cap + queue then
        ok, retry = false, -1
      elseif over > 0 then
        ok, retry = false, ceil(over, num)
      else
        debt = debt + cost * den
        if queue > 0 and debt > cap * den then delay = ceil(debt - cap * den, num) end
      end
    end
    remaining, reset = cap - ceil(debt, den), ceil(debt, num)
    if cost > 0 then
      values[i], lives[i] = pack('<dd', debt, t), reset * tick
    end
  elseif alg < 4 then
    local cur, prev = 0, 0
    if window > 0 then
      local t = div(now, tick)
      index = div(t, window)
      left = (index + 1) * window - t
    end
    if text then
      local was
      if #text == 16 then
        was, cur = unpack('<dd', text)
      elseif #text == 24 then
        was, cur, prev = unpack('<ddd', text)
      else
        return ''
      end
      if was > index then return '' end
      if was < index then
        if alg == 3 and was + 1 == index then prev = cur else prev = 0 end
        cur = 0
        rolled, rest = true, rest or cost == 0
      end
    end
    local life = left * tick
    if alg == 3 then
      remaining = div(cap * window - cur * window - prev * left, window)
      life = life + window * tick
    else
      remaining = cap - cur
      if window == 0 then life = life + 3600000000 end
    end
    reset = left
    if cost > cap then
      ok, retry = false, -1
    elseif cost > 0 and cost > remaining then
      ok, retry = false, left
      if alg == 3 then -- window.slid
        local free, e = cap - cost, window
        if cur <= free and prev > 0 then e = window - div((free - cur) * window, prev) end
        if e < window then
          retry = e - (window - left)
        elseif cur > free then
          retry = left + window - div(free * window, cur)
        end
      end
    elseif cost > 0 then
      cur, remaining = cur + cost, remaining - cost
    end
    if cost > 0 then
      if prev > 0 then values[i] = pack('<ddd', index, cur, prev) else values[i] = pack('<dd', index, cur) end
      lives[i] = life
    end
  else
    return ''
  end
  if remaining < 0 then remaining = 0 end
  fits = fits and ok
  out[i] = pack('<ddddd', ok and 1 or 0, remaining, reset, retry, delay)
end
if rest or rolled and not fits then return '' end
if fits then
  for i = 1, #KEYS do
    if values[i] then call('SET', KEYS[i], values[i], 'PX', string.format('%.0f', lives[i] / 1000 + keep)) end
  end
end
if #out == 1 then return out[1] end
return table.concat(out)
