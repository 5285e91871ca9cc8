-- KEYS: value, declared
-- ARGV: key, token, always (1 or 0)
if not is_claim then return 'N' end
if not declared then
  call('DEL', KEYS[1])
  return 'K'
end
if ARGV[3] == '1' then
  if flags % 4 >= 2 then return 'N' end
  call('HDEL', KEYS[2], ARGV[1])
  return 'K'
end
if flags % 4 < 2 then
  call('HSET', KEYS[2], ARGV[1], sub(old, 1, 2) .. string.char(flags + 2) .. sub(old, 4))
end
return 'E'
