-- Operations of one kind on keys of one shard. KEYS: declared claims, for begin the sequence, then a
-- value for each; ARGV: for begin two that all share, then as many for each as there are.
-- `one` does one of them: its arguments follow ARGV[at]. Returns an answer for each.
local call, sub = redis.call, string.sub
local claims = KEYS[1]
local fixed_keys, shared_args = 1, 0

-- Of the server, in microseconds.
local function clock()
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end
