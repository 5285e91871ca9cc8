-- KEYS: value, declared, sequence
-- ARGV: key, fingerprint, lease ms, claim id, declared (1 or 0), memo, step, residue, late ms
local call, pack = redis.call, struct.pack
local time = call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now = math.floor(now_us / 1000)
local fingerprint, id, memo = ARGV[2], ARGV[4], ARGV[6]
local flags, since = 0, now
local declared = ARGV[5] == '1'
local old = call('HGET', KEYS[2], ARGV[1])
local was_declared = old
if not old then old = call('GET', KEYS[1]) end
if old then
  if #old < 51 then return 'X' end
  local version, kind, old_flags, old_fingerprint, token, ends =
    struct.unpack('>BBBc32I8I8', old)
  if version ~= 1 then return 'V' .. string.char(version) end
  if kind == 2 then
    if ends > now then
      if old_fingerprint ~= fingerprint then return 'C' end
      return 'R' .. old
    end
  else
    if #old < 75 then return 'X' end
    local old_since, old_id = struct.unpack('>I8c16', old, 52)
    local abandoned = old_flags % 4 >= 2
    if old_id == id and not abandoned then
      -- Sent again: this is the claim that it made the first time.
      if old_flags >= 4 then return 'D' .. pack('>I8', token) .. string.sub(old, 76) end
      return 'F' .. pack('>I8', token)
    end
    local held = not abandoned and ends > now
    if (held or was_declared) and old_fingerprint ~= fingerprint then return 'C' end
    if held then return 'P' .. pack('>I8', ends) end
    if was_declared then
      declared, flags, since, memo = true, 4, old_since, string.sub(old, 76)
    end
  end
end
local token = call('INCRBY', KEYS[3], ARGV[7])
if token < now_us - 1000 then
  -- Tokens keep up with the clock, so that they grow also when a failover lost the last ones.
  token = now_us - now_us % ARGV[7] + ARGV[8]
  call('SET', KEYS[3], string.format('%.0f', token))
end
local claim = pack('>BBBc0I8I8I8c0', 1, 1, flags, fingerprint, token, now + ARGV[3], since, id) .. memo
if declared then
  call('HSET', KEYS[2], ARGV[1], claim)
  if old and not was_declared then call('DEL', KEYS[1]) end
else
  call('SET', KEYS[1], claim, 'PX', string.format('%.0f', ARGV[3] + ARGV[9]))
end
if flags == 4 then return 'D' .. pack('>I8', token) .. memo end
return 'F' .. pack('>I8', token)
