-- KEYS: value, declared
-- ARGV: key, token, memo
if not is_claim or flags % 4 >= 2 then return 'N' end
call('HSET', KEYS[2], ARGV[1], sub(old, 1, 75) .. ARGV[3])
if not declared then call('DEL', KEYS[1]) end
return 'K'
