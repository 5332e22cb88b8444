-- Takes back the PENDING of a task that could not be sent, if that is all there is of it.
--
-- KEYS  task hash, replay stream
-- ARGV  1 operation id of the PENDING
-- Returns 1, or 0 when there is none, or a worker has taken the task after all.

local was = redis.call('HMGET', KEYS[1], 'op', 'attempt')
if was[1] ~= ARGV[1] or was[2] ~= '0' then return 0 end
return redis.call('DEL', KEYS[1], KEYS[2]) > 0 and 1 or 0
