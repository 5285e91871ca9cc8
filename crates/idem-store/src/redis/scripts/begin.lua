-- Shared: step, residue. For each: fingerprint, claim id and memo, lease ms, ms that the claim is kept
-- or nothing if its effect is declared with it.
fixed_keys, shared_args = 2, 2
local pack = struct.pack
local sequence, step = KEYS[2], tonumber(ARGV[1])
local now_us = clock()
local now = math.floor(now_us / 1000)
-- Tokens are drawn for all that are left, this one among them, when the first is needed.
local left, next_token = #KEYS - fixed_keys + 1, nil

local function draw()
  if not next_token then
    local others = step * (left - 1)
    local last = call('INCRBY', sequence, step * left)
    if last - others < now_us - 1000 then
      -- Tokens keep up with the clock, so that they grow also when a failover lost the last ones.
      last = now_us - now_us % step + ARGV[2] + others
      call('SET', sequence, string.format('%.0f', last))
    end
    next_token = last - others
  end
  local token = next_token
  next_token = token + step
  return token
end

-- What becomes of a begin that meets a record: an answer, or whether the record is a doubt to be taken over.
local function meet(old, was_declared, fingerprint, id)
  if #old < 51 then return 'X' end
  local version, kind, flags, old_fingerprint, token, ends = struct.unpack('>BBBc32I8I8', old)
  if version ~= 1 and version ~= 2 then return 'V' .. string.char(version) end
  if kind == 2 then
    if ends <= now then return nil end
    if old_fingerprint ~= fingerprint then return 'C' end
    return 'R' .. old
  end
  if #old < memo_at(old) - 1 then return 'X' end
  local abandoned = flags % 4 >= 2
  if sub(old, 60, 75) == id and not abandoned then
    -- Sent again: this is the claim that it made the first time.
    if flags >= 4 then return 'D' .. pack('>I8', token) .. sub(old, memo_at(old)) end
    return 'F' .. pack('>I8', token)
  end
  local held = not abandoned and ends > now
  if (held or was_declared) and old_fingerprint ~= fingerprint then return 'C' end
  if held then return 'P' .. pack('>I8', ends) end
  return nil, was_declared
end

local function claim(flags, fingerprint, token, lease, since, id_and_memo)
  return '\1\1' .. flags .. fingerprint .. pack('>I8I8I8', token, now + lease, since) .. id_and_memo
end

local function one(value, key, at)
  local fingerprint, id_and_memo, lease, kept = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  left = left - 1
  local declared = kept == ''
  local old = call('HGET', claims, key)
  local was_declared = old
  if not old and next_token and not declared then
    -- Mostly it is new: one step looks and claims.
    local record = claim('\0', fingerprint, next_token, lease, now, id_and_memo)
    old = call('SET', value, record, 'NX', 'GET', 'PX', kept)
    if not old then return 'F' .. pack('>I8', draw()) end
  elseif not old then
    old = call('GET', value)
  end
  local flags, since = '\0', now
  if old then
    local answer, doubt = meet(old, was_declared, fingerprint, sub(id_and_memo, 1, 16))
    if answer then return answer end
    if doubt then
      flags, since, declared = '\4', struct.unpack('>I8', old, 52), true
      id_and_memo = sub(id_and_memo, 1, 16) .. sub(old, memo_at(old))
    end
  end
  local token = draw()
  local record = claim(flags, fingerprint, token, lease, since, id_and_memo)
  if declared then
    call('HSET', claims, key, record)
    if old and not was_declared then call('DEL', value) end
  else
    call('SET', value, record, 'PX', kept)
  end
  if flags == '\4' then return 'D' .. pack('>I8', token) .. sub(id_and_memo, 17) end
  return 'F' .. pack('>I8', token)
end
