local now = struct.pack('>I8', math.floor(clock() / 1000))

local function one(value, key)
  local old = call('HGET', claims, key)
  if old then return now .. 'd' .. old end
  old = call('GET', value)
  if old then return now .. 'v' .. old end
  return now
end
