"""The Lua scripts that change the store. Redis executes each of them atomically, on the keys of one hash slot.

`asyncapy_redis.layout` describes the keys.
"""

from typing import Final

ADD: Final = """
if not redis.call('SET', KEYS[1], ARGV[2], 'NX') then return 0 end
if ARGV[3] ~= '' then redis.call('PEXPIREAT', KEYS[1], ARGV[3]) end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
return 1
"""
"""Add a record. Keys: record, index. Arguments: id, record, expiry in UNIX milliseconds or empty, digest.

Returns 0 if the digest exists already.
"""

UPDATE: Final = r"""
local record = redis.call('GET', KEYS[1])
if not record then return 0 end
local head = string.match(record, '^[^\n]*\n[^\n]*\n[^\n]*\n')
redis.call('SET', KEYS[1], head .. ARGV[1], 'KEEPTTL')
return 1
"""
"""Replace the metadata of a record. Key: record. Argument: metadata. Returns 0 if there is no such record."""

REPLACE: Final = r"""
local record = redis.call('GET', KEYS[1])
if not record then return 0 end
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[3], string.match(record, '^[^\n]*'), ARGV[1])
return 1
"""
"""Move a record. Keys: old record, new record, index. Argument: new digest. Returns 0 if there is no such record."""

REMOVE: Final = r"""
local record = redis.call('GET', KEYS[1])
if not record then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HDEL', KEYS[2], string.match(record, '^[^\n]*'))
return 1
"""
"""Remove a record. Keys: record, index. Returns 0 if there is no such record."""

PURGE: Final = r"""
local purged = 0
for number = 2, #KEYS do
    local id, digest = ARGV[number * 2 - 2], ARGV[number * 2 - 1]
    local record = redis.call('GET', KEYS[number])
    local expires = record and string.match(record, '^[^\n]*\n[^\n]*\n([^\n]*)\n')
    local is_expired = expires and expires ~= '' and tonumber(expires) <= tonumber(ARGV[1])
    if (is_expired or not record) and redis.call('HGET', KEYS[1], id) == digest then
        redis.call('HDEL', KEYS[1], id)
        redis.call('DEL', KEYS[number])
        purged = purged + 1
    end
end
return purged
"""
"""Remove expired records, and ids of records that Redis has deleted at their expiry.

Keys: index, records. Arguments: UNIX time, then id and digest of each record. Returns the number of removed ids.
"""
