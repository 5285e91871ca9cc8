-- For each: token, number of the declare, memo. One whose number is not above the last one's was done before, or
-- is late.
local function one(value, key, at)
  local token, number, memo = unpack(ARGV, at + 1, at + 3)
  local answer, old, declared, is_claim, flags = held(value, key, token)
  if answer then return answer end
  if not is_claim or flags % 4 >= 2 then return 'N' end
  if memo_at(old) == 84 and struct.unpack('>I8', number) <= struct.unpack('>I8', old, 76) then return 'K' end
  call('HSET', claims, key, '\2' .. sub(old, 2, 75) .. number .. memo)
  if not declared then call('DEL', value) end
  return 'K'
end
