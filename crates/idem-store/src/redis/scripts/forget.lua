-- KEYS: value, declared
-- ARGV: key
local known = redis.call('HDEL', KEYS[2], ARGV[1]) + redis.call('DEL', KEYS[1])
if known > 0 then return '1' end
return '0'
