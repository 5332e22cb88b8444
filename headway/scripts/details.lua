-- Everything the store holds of a task, unless the reader has it already.
--
-- KEYS  task hash, children
-- ARGV  tags that the reader knows: <epoch>-<seq>, and .<rev> where there is one; * for any
-- Returns {tag}, or {tag, [field, value, …], [child, …]} when the reader knows another one, or nil when there is no such
-- task.

local now = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'rev')
if not now[1] then return nil end
local tag = now[1] .. '-' .. now[2] .. (now[3] and '.' .. now[3] or '')
for _, known in ipairs(ARGV) do
  if known == tag or known == '*' then return {tag} end
end
return {tag, redis.call('HGETALL', KEYS[1]), redis.call('LRANGE', KEYS[2], 0, -1)}
