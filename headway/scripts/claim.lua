-- Decides whether a delivery may run: one that finds its task finished, held by a live lease, or gone on to a later
-- generation may not. A grant begins the next attempt.
--
-- KEYS  task hash
-- ARGV  1 generation of the message (a retry carries the next one)   2 token of this delivery   3 lease in milliseconds
--       4 seconds to keep a live task   5 the attempt that runs already, to hold a task again whose claim the store has
--       lost (it came back empty, or older); nobody may have claimed it since. Else empty.
-- Returns {attempt}, or {-1, "finished" | "superseded" | "spare"}, or {-1, "held", milliseconds until the lease ends}:
-- then the message is to be sent again for that time. Until then, any other one is a spare.

local TERMINAL = {SUCCESS = true, FAILURE = true, REVOKED = true}
local generation, token = tonumber(ARGV[1]), ARGV[2]
local was = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'generation', 'lease', 'holder', 'postponed', 'waiter')
if was[1] and TERMINAL[was[1]] then return {-1, 'finished'} end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local attempt, current, lease = tonumber(was[2] or 0), tonumber(was[3] or -1), tonumber(was[4] or 0)
local again = tonumber(ARGV[5])
local taken = again and (was[5] and was[5] ~= token or attempt > again)
if generation < current or taken then return {-1, 'superseded'} end
if generation == current and lease > now then
  if was[5] == token then return {attempt} end
  -- The one that waits may ask twice, when the first answer was lost: it is no spare of itself.
  if tonumber(was[6] or 0) > now and was[7] ~= token then return {-1, 'spare'} end
  redis.call('HSET', KEYS[1], 'postponed', string.format('%.0f', lease), 'waiter', token)
  return {-1, 'held', lease - now}
end

attempt = again or attempt + 1
-- Whoever waits for an earlier generation will be dropped, and guards this one no longer.
redis.call('HSET', KEYS[1], 'attempt', attempt, 'generation', generation, 'holder', token,
  'lease', string.format('%.0f', now + ARGV[3]), 'postponed', 0)
redis.call('EXPIRE', KEYS[1], ARGV[4])
return {attempt}
