-- KEYS: value, declared
-- ARGV: key, token, lease ms, late ms
if not is_claim or flags % 4 >= 2 then return 'N' end
local time = call('TIME')
local ends = math.floor((time[1] * 1000000 + time[2]) / 1000) + ARGV[3]
local claim = sub(old, 1, 43) .. struct.pack('>I8', ends) .. sub(old, 52)
if declared then
  call('HSET', KEYS[2], ARGV[1], claim)
else
  call('SET', KEYS[1], claim, 'PX', string.format('%.0f', ARGV[3] + ARGV[4]))
end
return 'K'
