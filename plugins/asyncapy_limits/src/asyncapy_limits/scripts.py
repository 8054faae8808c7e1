"""The Lua scripts that count in Redis or Valkey, each of which is executed atomically, by the clock of that server."""

from __future__ import annotations

from typing import Final

TAKE: Final = r"""
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local levels, last, room, wait = {}, now, tonumber(ARGV[1]), 0
for number in string.gmatch(redis.call('GET', KEYS[1]) or '', '%S+') do
    table.insert(levels, tonumber(number) or 0)
end
if #levels > 0 then last = table.remove(levels, 1) end
local elapsed = math.max(0, now - last)
for index = 1, (#ARGV - 1) / 2 do
    local count, period = tonumber(ARGV[2 * index]), tonumber(ARGV[2 * index + 1])
    local level = math.max(0, (levels[index] or 0) - elapsed * count / period)
    room = math.min(room, math.floor(count - level + 0.001))
    if level > count - 0.999 then wait = math.max(wait, (level - count + 1) * period / count) end
    levels[index] = level
end
if room < 1 then return {0, tostring(wait)} end
local value, longest = string.format('%.6f', now), 0
for index = 1, (#ARGV - 1) / 2 do
    local level = levels[index] + room
    value = value .. string.format(' %.17g', level)
    longest = math.max(longest, level * ARGV[2 * index + 1] / ARGV[2 * index])
end
redis.call('SET', KEYS[1], value, 'PX', math.ceil(longest * 1000) + 1)
return {room, '0'}
"""
"""Count packets as `asyncapy_limits.window.Window` does: as many as are asked for, or as pass. Key: that of a subject.

Arguments: the packets; then count and period of each limit. The value is the time of the last change, then the levels.
Returns how many packets pass, and for none the seconds until one does, as a text.
"""

REGISTER: Final = r"""
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
if redis.call('TTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('EXPIRE', KEYS[1], math.ceil(ARGV[2])) end
return redis.call('ZCARD', KEYS[1])
"""
"""Note that a server counts in this store. Key: the servers. Arguments: its id, and the seconds for which this holds.

Returns the number of servers.
"""
