-- A task's newest state and the state and log events after a position, read in one moment.
--
-- KEYS  task hash, replay stream
-- ARGV  1 epoch and 2 seq of the reader's cursor, both empty if it has none
-- Returns {epoch, seq, kept, state, rest, [event, …], rev}, or nil when there is no such task.

local now = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'kept', 'state', 'rest', 'rev')
if not now[1] then return nil end
local missed = {}
if ARGV[1] == now[1] and tonumber(ARGV[2]) < tonumber(now[3]) then
  for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '(' .. ARGV[2] .. '-0', '+')) do
    table.insert(missed, entry[2][2])
  end
end
return {now[1], now[2], now[3], now[4], now[5], missed, now[6] or 0}
