-- For each: token, flags, retain ms, ms that the outcome is kept, outcome
local now = math.floor(clock() / 1000)

local function one(value, key, at)
  local token, outcome_flags, retain, kept, outcome = unpack(ARGV, at + 1, at + 5)
  local answer, old, declared, is_claim, flags = held(value, key, token)
  if answer then return answer end
  if not is_claim then return 'K' end
  if flags % 4 >= 2 then return 'N' end
  local ends = struct.pack('>I8', now + retain)
  call('SET', value, '\1\2' .. outcome_flags .. sub(old, 4, 43) .. ends .. outcome, 'PX', kept)
  if declared then call('HDEL', claims, key) end
  return 'K'
end
