"""The Lua scripts that change the store. Redis executes each of them atomically.

KEYS[1] is a hash from digests to records, KEYS[2] a hash from ids to digests. A record has four lines: id, time of
issue, expiry (empty if there is none) and metadata in JSON.
"""

from typing import Final

ADD: Final = """
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[3]) == 0 then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[1])
return 1
"""
"""Add a record. Arguments: digest, id, record. Returns 0 if the digest exists already."""

UPDATE: Final = r"""
local record = redis.call('HGET', KEYS[1], ARGV[1])
if not record then return 0 end
local head = string.match(record, '^[^\n]*\n[^\n]*\n[^\n]*\n')
redis.call('HSET', KEYS[1], ARGV[1], head .. ARGV[2])
return 1
"""
"""Replace the metadata of a record. Arguments: digest, metadata. Returns 0 if there is no such record."""

REPLACE: Final = r"""
local record = redis.call('HGET', KEYS[1], ARGV[1])
if not record then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[2], record)
redis.call('HSET', KEYS[2], string.match(record, '^[^\n]*'), ARGV[2])
return 1
"""
"""Move a record. Arguments: old digest, new digest. Returns 0 if there is no such record."""

REMOVE: Final = r"""
local record = redis.call('HGET', KEYS[1], ARGV[1])
if not record then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], string.match(record, '^[^\n]*'))
return 1
"""
"""Remove a record. Argument: digest. Returns 0 if there is no such record."""

PURGE: Final = r"""
local purged = 0
for index = 2, #ARGV do
    local record = redis.call('HGET', KEYS[1], ARGV[index])
    if record then
        local id, expires = string.match(record, '^([^\n]*)\n[^\n]*\n([^\n]*)\n')
        if expires ~= '' and tonumber(expires) <= tonumber(ARGV[1]) then
            redis.call('HDEL', KEYS[1], ARGV[index])
            redis.call('HDEL', KEYS[2], id)
            purged = purged + 1
        end
    end
end
return purged
"""
"""Remove expired records. Arguments: UNIX time, digests to check. Returns the number of removed records."""
