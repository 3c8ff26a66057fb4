-- Writes a batch of vehicles, each unless Redis has a newer state of it.
-- KEYS: state, fleet, times, former, then the hash of each vehicle.
-- ARGV: a nonce for a new state, epoch, keep (ms), what names of hashes begin
-- with, how many ids to sweep; then of each vehicle: id, source offset, longitude
-- and latitude or two empty strings, the number of strings that follow, and these:
-- fields and values. A vehicle without any is forgotten.
-- Returns the state's nonce (empty when another epoch has begun), and how many were
-- written, how many were older, how many ids were swept.
local epoch, keep, sweep = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local state = redis.call('HMGET', KEYS[1], 'nonce', 'epoch')
local nonce, was = state[1], tonumber(state[2] or '')
if was and was > epoch then
  return { '', 0, (#KEYS - 4), 0 }
end
if not nonce or not was or was < epoch then
  redis.call('ZUNIONSTORE', KEYS[4], 2, KEYS[4], KEYS[3])
  redis.call('PEXPIRE', KEYS[4], keep)
  redis.call('DEL', KEYS[2], KEYS[3])
  nonce = ARGV[1]
  redis.call('HSET', KEYS[1], 'nonce', nonce, 'epoch', ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], keep) -- a log that begins again at a lower epoch waits no longer than this
local written, older, at = 0, 0, 6
for k = 5, #KEYS do
  local id, source, n = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 4])
  local has = redis.pcall('HMGET', KEYS[k], 'epoch', 'source_offset') -- an error when it is no hash: then it is replaced
  local e, s = tonumber(has[1] or ''), tonumber(has[2] or '')
  -- What is as new is the same; it is written again if the sets have lost the vehicle.
  local same = e == epoch and s == source and redis.call('ZSCORE', KEYS[3], id)
  if e and s and (e > epoch or e == epoch and s > source or same) then
    older = older + 1
  else
    redis.call('DEL', KEYS[k])
    redis.call('HSET', KEYS[k], 'epoch', ARGV[2], 'source_offset', ARGV[at + 1], unpack(ARGV, at + 5, at + 4 + n))
    redis.call('PEXPIRE', KEYS[k], keep)
    if n == 0 then
      redis.call('ZREM', KEYS[3], id)
    else
      redis.call('ZADD', KEYS[3], now, id)
    end
    if ARGV[at + 2] == '' then
      redis.call('ZREM', KEYS[2], id)
    else
      redis.call('GEOADD', KEYS[2], ARGV[at + 2], ARGV[at + 3], id)
    end
    written = written + 1
  end
  at = at + 5 + n
end
local expired = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now - keep, 'LIMIT', 0, sweep)
if #expired > 0 then
  redis.call('ZREM', KEYS[2], unpack(expired))
  redis.call('ZREM', KEYS[3], unpack(expired))
end
local former = redis.call('ZPOPMIN', KEYS[4], sweep)
for i = 1, #former, 2 do
  local key = ARGV[4] .. former[i]
  local e = tonumber(redis.call('HGET', key, 'epoch') or '')
  if e and e < epoch then
    redis.call('DEL', key)
  end
end
return { nonce, written, older, #expired }
