local function one(value, key)
  if call('HDEL', claims, key) + call('DEL', value) > 0 then return '1' end
  return '0'
end
