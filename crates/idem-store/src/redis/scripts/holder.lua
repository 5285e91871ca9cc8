
-- The record of a key that is held with the token: its text, whether its effect is declared, whether it
-- is a claim, its flags. Or what to answer instead.
local function held(value, key, token)
  local old = call('HGET', claims, key)
  local declared = old
  if not old then old = call('GET', value) end
  if not old then return 'N' end
  if #old < 51 then return 'X' end
  local version = sub(old, 1, 1)
  if version ~= '\1' and version ~= '\2' then return 'V' .. version end
  if sub(old, 36, 43) ~= token then return 'N' end
  return nil, old, declared, sub(old, 2, 2) == '\1', string.byte(old, 3)
end

