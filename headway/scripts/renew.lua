-- Moves the end of a lease; into the past, to give it up.
--
-- KEYS  task hash
-- ARGV  1 token of the delivery that holds it   2 milliseconds from now
-- Returns 1, or 0 when another delivery holds the task by now.

if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'lease', string.format('%.0f', now + ARGV[2]))
return 1
