-- attempt does f for the i-th key, and returns what it does. When it raises an error,
-- as for a key of another type, this key has failed and no other: bad notes its place
-- from 0 on, the length of the error's text, and the text.
local function attempt(bad, i, f)
  local ok, result = pcall(f)
  if ok then return result end
  if type(result) == 'table' then result = result.err end
  result = tostring(result)
  bad[#bad + 1] = pack('<dd', i - 1, #result) .. result
end
