-- For each: token, lease ms, ms that the claim is kept
local now = math.floor(clock() / 1000)

local function one(value, key, at)
  local answer, old, declared, is_claim, flags = held(value, key, ARGV[at + 1])
  if answer then return answer end
  if not is_claim or flags % 4 >= 2 then return 'N' end
  local claim = sub(old, 1, 43) .. struct.pack('>I8', now + ARGV[at + 2]) .. sub(old, 52)
  if declared then
    call('HSET', claims, key, claim)
  else
    call('SET', value, claim, 'PX', ARGV[at + 3])
  end
  return 'K'
end
