-- Gives a report its place in the task's life and tells everybody, atomically.
--
-- KEYS  task hash, replay stream, journal stream, event channel, feed channel
-- ARGV  1 task id (JSON)   2 type   3 state   4 attempt   5 operation id   6 ts
--       7 amount ("current":…,"total":…,"unit":…,"stage":…)   8 percent   9 message (JSON)
--       10 pace ("rate":…,"eta":…)   11 extra (,"level":…)
--       12, 13 seconds to keep a live and an ended task   14, 15 entries of the replay stream and of the journal
--       16… field, value: what the task resource shows besides
--       An empty state, amount, percent or message means "as it was". Attempt: empty for the current one, + for the next.
-- Returns {seq, attempt, epoch}, or {-1, "finished" | "superseded"} when the report is refused.

local TERMINAL = {SUCCESS = true, FAILURE = true, REVOKED = true}
local id, kind, state, attempt, op, ts = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local amount, percent, message, pace, extra = ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11]

local was = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'kept', 'attempt', 'state', 'amount', 'percent', 'message', 'op', 'peak')
local epoch, seq, kept = was[1], tonumber(was[2] or 0), was[3] or '0'
local running, old = tonumber(was[4] or 0), was[5]

-- A retried call whose first reply was lost: it has been done.
if op ~= '' and op == was[9] then return {seq, running, epoch} end
if old and TERMINAL[old] then return {-1, 'finished'} end

if attempt == '+' then
  attempt = running + 1
else
  attempt = tonumber(attempt) or running
  if attempt < running then return {-1, 'superseded'} end
  -- An attempt that has said RETRY is over, though the next one has not begun: it may end the task, and nothing else.
  if old == 'RETRY' and (kind == 'progress' or state == 'RETRY')
     and redis.call('HEXISTS', KEYS[1], 'run:' .. attempt .. ':finished_at') == 1 then
    return {-1, 'superseded'}
  end
end

if #ARGV > 15 then
  redis.call('HSET', KEYS[1], unpack(ARGV, 16))
  -- A change of state makes every room forget the details it knows. Anything else that brings new ones has to say so.
  if old and (kind ~= 'state' or state == 'PENDING') then
    local rev = redis.call('HINCRBY', KEYS[1], 'rev', 1)
    redis.call('SPUBLISH', KEYS[4], 'n ' .. epoch .. ' ' .. seq .. ' ' .. rev .. '\n')
  end
end
-- The submitter may speak after the worker has begun: then it adds what it knows, and nothing happened.
if old and state == 'PENDING' then return {seq, running, epoch} end

if not epoch then
  -- A stream that outlived its hash (eviction takes keys one by one) would refuse the sequence that begins again.
  redis.call('DEL', KEYS[2])
  local now = redis.call('TIME')
  epoch = string.format('%d%03d', now[1], math.floor(now[2] / 1000))
end
if state == '' then state = old or 'PENDING' end
if amount == '' then amount = was[6] or '"current":0,"total":null,"unit":null,"stage":null' end
if percent == '' then percent = was[7] or 'null' end
-- Within an attempt percent never goes back, whatever several reporters of one task say, nor across a time without one.
-- A start begins at nothing, also when its attempt was claimed before.
local peak = attempt == running and state ~= 'STARTED' and was[10] or '0.0'
if percent ~= 'null' then
  if state == 'SUCCESS' then percent = '100.0' end
  if tonumber(percent) < tonumber(peak) then percent = peak else peak = percent end
end

seq = seq + 1
local said = message
if message == '' then said = was[8] or 'null' end
-- A task that waits for its first run shows attempt 1.
local shown = math.max(attempt, 1)
local rest = '"attempt":' .. shown .. ',"state":"' .. state .. '",' .. amount .. ',"percent":' .. percent
  .. ',"message":' .. said .. ',' .. pace .. ',"stalled":false,"ts":' .. ts .. extra
local event = '{"v":1,"type":"' .. kind .. '","task_id":' .. id .. ',"cursor":"' .. epoch .. '-' .. seq
  .. '","seq":' .. seq .. ',"prev":' .. kept .. ',' .. rest .. '}'

if kind == 'progress' then
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'seq', seq, 'kept', kept, 'attempt', attempt, 'state', state,
    'amount', amount, 'percent', percent, 'peak', peak, 'message', said, 'rest', rest)
  if seq == 1 then redis.call('EXPIRE', KEYS[1], ARGV[12]) end
  redis.call('SPUBLISH', KEYS[4], 'p ' .. epoch .. ' ' .. kept .. ' ' .. seq .. '\n' .. event)
  return {seq, attempt, epoch}
end

local letter = 'l'
if kind == 'log' then
  -- A log line is not the task's message: the state that later joiners are shown stays what it was.
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'seq', seq, 'kept', seq, 'op', op)
  if not old then
    redis.call('HSET', KEYS[1], 'attempt', attempt, 'state', state, 'amount', amount, 'percent', percent,
      'rest', '"attempt":' .. shown .. ',"state":"' .. state .. '",' .. amount .. ',"percent":' .. percent
      .. ',"message":null,' .. pace .. ',"stalled":false,"ts":' .. ts)
  end
else
  letter = TERMINAL[state] and 't' or 's'
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'seq', seq, 'kept', seq, 'attempt', attempt, 'state', state,
    'amount', amount, 'percent', percent, 'peak', peak, 'message', said, 'rest', rest, 'op', op)
  local run = 'run:' .. attempt .. ':'
  if state == 'STARTED' then
    redis.call('HSET', KEYS[1], run .. 'started_at', ts)
    -- An attempt that was handed over or lost never said its end; it is over all the same.
    local before = 'run:' .. attempt - 1 .. ':'
    if redis.call('HEXISTS', KEYS[1], before .. 'started_at') == 1 then
      redis.call('HSETNX', KEYS[1], before .. 'finished_at', ts)
    end
  elseif attempt > 0 and (state == 'RETRY' or letter == 't') then
    redis.call('HSET', KEYS[1], run .. 'finished_at', ts, run .. 'state', state)
  end
end

local sent = letter .. ' ' .. epoch .. ' ' .. kept .. ' ' .. seq .. '\n' .. event
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[14], seq .. '-0', 'e', sent)
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[15], '*', 'e', sent)
local ttl = letter == 't' and ARGV[13] or ARGV[12]
redis.call('EXPIRE', KEYS[1], ttl)
redis.call('EXPIRE', KEYS[2], ttl)
redis.call('SPUBLISH', KEYS[4], sent)
if letter ~= 'l' then redis.call('SPUBLISH', KEYS[5], sent) end
return {seq, attempt, epoch}
