-- For each: token, memo
local function one(value, key, at)
  local answer, old, declared, is_claim, flags = held(value, key, ARGV[at + 1])
  if answer then return answer end
  if not is_claim or flags % 4 >= 2 then return 'N' end
  call('HSET', claims, key, sub(old, 1, 75) .. ARGV[at + 2])
  if not declared then call('DEL', value) end
  return 'K'
end
