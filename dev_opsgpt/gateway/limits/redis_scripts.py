"""What Redis runs, each at once and as a whole: the windows of ``routing/limits.py`` over its own
types, by its own clock, so that the clocks of the gateways' machines do not matter.

A window is a hash of counts by bucket, with their sum under ``sum``, and a list of the buckets in
their order. Requests in flight are a sorted set by the time, in milliseconds, after which one that
was not heard of is forgotten.
"""

_WINDOWS = """
local time = redis.call('TIME')
local milliseconds = time[1] * 1000 + math.floor(time[2] / 1000)
local bucket = math.floor(milliseconds / 100)

-- The last minute's total.
local function used(counts, order)
  local newest = redis.call('LINDEX', order, -1)
  if newest and tonumber(newest) >= bucket + 600 then
    -- The clock was set back: what was counted would stay until it is there again.
    redis.call('DEL', counts, order)
  end
  local oldest = redis.call('LINDEX', order, 0)
  while oldest and tonumber(oldest) <= bucket - 600 do
    local gone = redis.call('HGET', counts, oldest) or 0
    redis.call('HINCRBY', counts, 'sum', 0 - gone)  -- not -gone: "-0" is no number to Redis
    redis.call('HDEL', counts, oldest)
    redis.call('LPOP', order)
    oldest = redis.call('LINDEX', order, 0)
  end
  if not oldest then
    redis.call('DEL', counts)
    return 0
  end
  return tonumber(redis.call('HGET', counts, 'sum') or 0)
end

-- Counts more in the newest bucket, and gives its number.
local function add(counts, order, amount)
  local newest = tonumber(redis.call('LINDEX', order, -1) or 0)
  local here = math.max(bucket, newest)
  if here > newest then
    redis.call('RPUSH', order, here)
  end
  redis.call('HINCRBY', counts, here, amount)
  redis.call('HINCRBY', counts, 'sum', amount)
  redis.call('PEXPIRE', counts, 61000)
  redis.call('PEXPIRE', order, 61000)
  return here
end

-- In how many milliseconds so much of what is counted will have left.
local function wait(counts, order, amount)
  if amount <= 0 then
    return 0
  end
  local buckets = redis.call('LRANGE', order, 0, -1)
  for _, here in ipairs(buckets) do
    amount = amount - (redis.call('HGET', counts, here) or 0)
    if amount <= 0 then
      return (here + 600) * 100 - milliseconds
    end
  end
  return 60000
end
"""

ADMIT = (
    _WINDOWS
    + """
-- KEYS: requests' counts and order, tokens' counts and order, in flight, spent.
-- ARGV: rpm, tpm, concurrent, budget (empty for none), tokens, lease, milliseconds it lives.
local rpm, tpm = tonumber(ARGV[1]), tonumber(ARGV[2])
local concurrent, budget = tonumber(ARGV[3]), tonumber(ARGV[4])
local asked = tonumber(ARGV[5])
local requests, tokens, in_flight, spent = 0, 0, 0, 0
if rpm then requests = used(KEYS[1], KEYS[2]) end
if tpm then tokens = used(KEYS[3], KEYS[4]) end
if concurrent then
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', milliseconds)
  -- By a clock that was set back since.
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '(' .. (milliseconds + ARGV[7]), '+inf')
  in_flight = redis.call('ZCARD', KEYS[5])
end
if budget then spent = tonumber(redis.call('GET', KEYS[6]) or 0) end
if (rpm and requests >= rpm) or (tpm and tokens + asked > tpm)
  or (concurrent and in_flight >= concurrent) or (budget and spent >= budget) then
  return {
    0, requests, tokens, tostring(spent),
    wait(KEYS[1], KEYS[2], requests), wait(KEYS[1], KEYS[2], requests + 1 - (rpm or 0)),
    wait(KEYS[3], KEYS[4], tokens), wait(KEYS[3], KEYS[4], tokens + asked - (tpm or 0)),
  }
end
local here = bucket
if rpm then here = add(KEYS[1], KEYS[2], 1) end
if tpm then here = add(KEYS[3], KEYS[4], asked) end
if concurrent then
  redis.call('ZADD', KEYS[5], milliseconds + ARGV[7], ARGV[6])
  redis.call('PEXPIRE', KEYS[5], ARGV[7])
end
return {1, requests + 1, tokens + asked, here}
"""
)

SETTLE = (
    _WINDOWS
    + """
-- KEYS: tokens' counts and order, in flight, spent.
-- ARGV: lease, bucket, change of tokens, cost, seconds that the spending is kept (0: for ever).
redis.call('ZREM', KEYS[3], ARGV[1])
local change = tonumber(ARGV[3])
if change ~= 0 then
  used(KEYS[1], KEYS[2])
  if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 1 then
    redis.call('HINCRBY', KEYS[1], ARGV[2], change)
    redis.call('HINCRBY', KEYS[1], 'sum', change)
  elseif change > 0 then
    add(KEYS[1], KEYS[2], change)
  end
end
if tonumber(ARGV[4]) > 0 then
  redis.call('INCRBYFLOAT', KEYS[4], ARGV[4])
  if tonumber(ARGV[5]) > 0 then redis.call('EXPIRE', KEYS[4], ARGV[5]) end
end
"""
)

USED = (
    _WINDOWS
    + """
-- KEYS as for admission.
redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', milliseconds)
return {
  used(KEYS[1], KEYS[2]), used(KEYS[3], KEYS[4]), redis.call('ZCARD', KEYS[5]),
  redis.call('GET', KEYS[6]) or '0',
}
"""
)

SPENT = """
-- KEYS: spent. ARGV: at least so much, seconds that it is kept (0: for ever).
if tonumber(redis.call('GET', KEYS[1]) or 0) < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1])
  if tonumber(ARGV[2]) > 0 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
end
"""

BEAT = """
-- KEYS: in flight. ARGV: milliseconds they live, leases.
-- One that is not there any more was settled.
local time = redis.call('TIME')
local milliseconds = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 2, #ARGV do
  redis.call('ZADD', KEYS[1], 'XX', milliseconds + ARGV[1], ARGV[i])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""
