package redisstore

import (
	"crypto/sha1" // #nosec G505 -- see newScript
	"encoding/hex"
)

// script is Lua source and the digest under which Redis remembers it. Each script touches KEYS[1] alone, so that it runs on a Redis
// Cluster, and changes nothing when the same call already did its work.
type script struct {
	source string
	sha    string
}

func newScript(source string) script {
	sum := sha1.Sum([]byte(source)) // #nosec G401 -- what EVALSHA wants; nothing rests on its strength
	return script{source: source, sha: hex.EncodeToString(sum[:])}
}

// What the scripts that return a number mean by it.
const (
	codeNone     = -1 // there is no record
	codeConflict = 0  // it has another version or has ended; another owner holds the lease
	codeDone     = 1
	codeSame     = 2 // it had ended already, for the same reason
)

// ARGV: the value, its time to live in ms. Not SET NX: sent again after its answer was lost, it must find its own write, and it must
// not write over a tombstone that came in between. Seen may have moved.
var createSession = newScript(`
local old = redis.call('GET', KEYS[1])
if not old then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 1
end
if string.sub(old, 1, 10) == string.sub(ARGV[1], 1, 10) and string.sub(old, 19) == string.sub(ARGV[1], 19) then
  return 1
end
return 0`)

// live is a Lua function: whether a value, or the header of one, is a session that has not ended.
const live = `
local function live(value)
  return #value >= 18 and string.byte(value, 1) == 1 and string.byte(value, 2) == 0
end`

// ARGV: version expected, version after, sealed value, channel, session, least time to live in ms or 0. A record that has the version after and the very value is
// this call's own write; no two sealed values are the same.
var swapSession = newScript(live + `
local old = redis.call('GET', KEYS[1])
if not old then
  return -1
end
if not live(old) then
  return 0
end
local version = string.sub(old, 3, 10)
if version == ARGV[2] and string.sub(old, 19) == ARGV[3] then
  return 1
end
if version ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], string.sub(old, 1, 2) .. ARGV[2] .. string.sub(old, 11, 18) .. ARGV[3], 'KEEPTTL')
local ttl = tonumber(ARGV[6])
if ttl > 0 and redis.call('PTTL', KEYS[1]) < ttl then
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
end
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1`)

// ARGV: seen as the value holds it, seen as a number.
var touchSession = newScript(live + `
local head = redis.call('GETRANGE', KEYS[1], 0, 17)
if head == '' then
  return -1
end
if not live(head) then
  return 0
end
local seen = 0
for i = 11, 18 do
  seen = seen * 256 + string.byte(head, i)
end
if tonumber(ARGV[2]) > seen then
  redis.call('SETRANGE', KEYS[1], 10, ARGV[1])
end
return 1`)

// ARGV: reason, whether to keep the sealed value, channel, session. The notice goes out even when there is nothing to end, so that
// caches drop what the store no longer has. What is no record of ours becomes a tombstone, too.
var endSession = newScript(live + `
redis.call('PUBLISH', ARGV[3], ARGV[4])
local old = redis.call('GET', KEYS[1])
if not old then
  return -1
end
if #old < 18 or string.byte(old, 1) ~= 1 then
  old = '\1' .. string.rep('\0', 17)
end
local length = string.byte(old, 2)
if length > 0 then
  if string.sub(old, 19, 18 + length) == ARGV[1] then
    return 2
  end
  return 0
end
local sealed = ''
if ARGV[2] == '1' then
  sealed = string.sub(old, 19)
end
redis.call('SET', KEYS[1], '\1' .. string.char(#ARGV[1]) .. string.sub(old, 3, 18) .. ARGV[1] .. sealed, 'KEEPTTL')
return 1`)

// ARGV: what is to be behind a tombstone in place of a longer value. A record that lives, or is none of ours, stays as it is.
var stripTombstone = newScript(`
local old = redis.call('GET', KEYS[1])
if not old or #old < 18 or string.byte(old, 1) ~= 1 or string.byte(old, 2) == 0 then
  return -1
end
local length = 18 + string.byte(old, 2)
if #old <= length + #ARGV[1] then
  return 2
end
redis.call('SET', KEYS[1], string.sub(old, 1, length) .. ARGV[1], 'KEEPTTL')
return 1`)

// now is a Lua function: the time in ms. It is Redis's, so that replicas whose clocks differ never trim each other's entries.
const now = `
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end`

// ARGV: handle, when it expires in ms, Max. Returns the members beyond Max and their scores, the oldest first,
// and removes only those beyond twice Max (see session.Store).
var addEntry = newScript(now + `
local time, expires, max = now(), tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', time))
if expires <= time then
  return {}
end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
if redis.call('PTTL', KEYS[1]) < expires - time then
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', expires - time))
end
local over = {}
if max > 0 then
  local count = redis.call('ZCARD', KEYS[1])
  local oldest = {}
  if count > max then
    oldest = redis.call('ZRANGE', KEYS[1], 0, count - max, 'WITHSCORES')
  end
  for i = 1, #oldest, 2 do
    if oldest[i] ~= ARGV[1] and #over < 2 * (count - max) then
      over[#over + 1] = oldest[i]
      over[#over + 1] = oldest[i + 1]
    end
  end
  for i = 1, 2 * (count - 2 * max), 2 do
    redis.call('ZREM', KEYS[1], over[i])
  end
end
return over`)

// ARGV: handle.
var removeEntry = newScript(`
redis.call('ZREM', KEYS[1], ARGV[1])
return 1`)

// Returns the live members and their scores, the oldest first.
var listEntries = newScript(now + `
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now()), '+inf', 'WITHSCORES')`)

// sizes is a Lua function: it calls f with the member and the size of all values that are kept. They are few: see session.KeptLeast.
const sizes = `
local function sizes(f)
  for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    local size, key = string.match(member, '^(%d+) (.*)$')
    f(member, tonumber(size) or 0, key)
  end
end`

// ARGV: key of the value, its size, its time to live in ms, how much may be kept together.
var countKept = newScript(now + sizes + `
local time, sum, before = now(), tonumber(ARGV[2]), nil
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', time))
sizes(function(member, size, key)
  if key == ARGV[1] then
    before = member
  else
    sum = sum + size
  end
end)
if sum > tonumber(ARGV[4]) then
  return 0
end
if before then
  redis.call('ZREM', KEYS[1], before)
end
redis.call('ZADD', KEYS[1], string.format('%.0f', time + ARGV[3]), ARGV[2] .. ' ' .. ARGV[1])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 1`)

// ARGV: key of the value.
var forgetKept = newScript(sizes + `
sizes(function(member, _, key)
  if key == ARGV[1] then
    redis.call('ZREM', KEYS[1], member)
  end
end)
return 1`)

// ARGV: what says that it was taken, and by whom: sent again, the script finds its own.
var takeKept = newScript(`
local head = redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1)
if head == '' then
  return -1
end
if string.byte(head, 1) == 1 then
  redis.call('SET', KEYS[1], ARGV[1], 'KEEPTTL')
  return 1
end
if head == ARGV[1] then
  return 1
end
return 0`)

// ARGV: owner, time to live in ms.
var acquireLease = newScript(`
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`)

// ARGV: owner, time to live in ms.
var renewLease = newScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1`)

// ARGV: owner, channel, session.
var releaseLease = newScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 1`)
