-- Remembers that a task has sent another one, and tells the rooms of the parent.
--
-- KEYS  task hash and children of the parent, its event channel
-- ARGV  1 id of the child   2 children to remember, at most   3 seconds to keep them

if redis.call('LLEN', KEYS[2]) >= tonumber(ARGV[2]) then return end
redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[3])
-- A parent that nobody has heard of yet is told with its first event; a revision alone would make a task of it.
local was = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
if not was[1] then return end
local rev = redis.call('HINCRBY', KEYS[1], 'rev', 1)
redis.call('SPUBLISH', KEYS[3], 'n ' .. was[1] .. ' ' .. was[2] .. ' ' .. rev .. '\n')
