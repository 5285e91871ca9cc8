-- For each: token, always (1 or 0)
local function one(value, key, at)
  local answer, old, declared, is_claim, flags = held(value, key, ARGV[at + 1])
  if answer then return answer end
  if not is_claim then return 'N' end
  if not declared then
    call('DEL', value)
    return 'K'
  end
  if ARGV[at + 2] == '1' then
    if flags % 4 >= 2 then return 'N' end
    call('HDEL', claims, key)
    return 'K'
  end
  if flags % 4 < 2 then
    call('HSET', claims, key, sub(old, 1, 2) .. string.char(flags + 2) .. sub(old, 4))
  end
  return 'E'
end
