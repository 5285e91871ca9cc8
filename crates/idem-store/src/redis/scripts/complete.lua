-- KEYS: value, declared
-- ARGV: key, token, flags, retain ms, outcome
if not is_claim then return 'K' end
if flags % 4 >= 2 then return 'N' end
local time = call('TIME')
local ends = math.floor((time[1] * 1000000 + time[2]) / 1000) + ARGV[4]
if ARGV[4] == '0' then
  if not declared then call('DEL', KEYS[1]) end
else
  local outcome = '\1\2' .. ARGV[3] .. sub(old, 4, 43) .. struct.pack('>I8', ends) .. ARGV[5]
  call('SET', KEYS[1], outcome, 'PX', ARGV[4])
end
if declared then call('HDEL', KEYS[2], ARGV[1]) end
return 'K'
