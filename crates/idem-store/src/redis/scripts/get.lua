-- KEYS: value, declared
-- ARGV: key
local time = redis.call('TIME')
local now = struct.pack('>I8', math.floor((time[1] * 1000000 + time[2]) / 1000))
local old = redis.call('HGET', KEYS[2], ARGV[1])
if old then return now .. 'd' .. old end
old = redis.call('GET', KEYS[1])
if old then return now .. 'v' .. old end
return now
