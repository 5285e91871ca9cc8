local call, sub = redis.call, string.sub
local old = call('HGET', KEYS[2], ARGV[1])
local declared = old
if not old then old = call('GET', KEYS[1]) end
if not old then return 'N' end
if #old < 51 then return 'X' end
if sub(old, 1, 1) ~= '\1' then return 'V' .. sub(old, 1, 1) end
if sub(old, 36, 43) ~= ARGV[2] then return 'N' end
local is_claim = sub(old, 2, 2) == '\1'
local flags = string.byte(old, 3)
