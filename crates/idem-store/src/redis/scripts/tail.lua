
local count, answers = #KEYS - fixed_keys, {}
local width = (#ARGV - shared_args) / count
-- The name of a value is that of the claims with "k:" in the place of "d", and the key.
local key_at = #claims + 2
for i = 1, count do
  local value = KEYS[fixed_keys + i]
  answers[i] = one(value, sub(value, key_at), shared_args + (i - 1) * width)
end
return answers
