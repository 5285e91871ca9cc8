-- For each: the token that was found with the key, or nothing: then it is found and told. So a copy that
-- arrives late forgets nothing that came since.
local now = struct.pack('>I8', math.floor(clock() / 1000))

local function one(value, key, at)
  local found = ARGV[at + 1]
  local old = call('HGET', claims, key) or redis.pcall('GET', value)
  if not old then return '0' end
  local known = '1'
  if type(old) == 'string' and #old >= 51 then
    local token = sub(old, 36, 43)
    if token ~= found then return 'T' .. token end
    if sub(old, 2, 2) == '\2' and sub(old, 44, 51) <= now then known = '0' end
  end
  call('HDEL', claims, key)
  call('DEL', value)
  return known
end
