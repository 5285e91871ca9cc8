-- Operations of one kind on keys of one shard. KEYS: declared claims, for begin the sequence, then a
-- value for each; ARGV: for begin two that all share, then as many for each as there are.
-- `one` does one of them: its arguments follow ARGV[at]. Returns an answer for each.
local call, sub = redis.call, string.sub
local claims = KEYS[1]
local fixed_keys, shared_args = 1, 0

-- Where the memo of a claim begins. Version 2 has the number of the last declare before it.
local function memo_at(claim)
  return sub(claim, 1, 1) == '\1' and 76 or 84
end

-- Of the server, in microseconds.
local function clock()
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end
