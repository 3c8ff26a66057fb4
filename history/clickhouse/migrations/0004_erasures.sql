-- Erasures: fixes of a vehicle before a device time are deleted and never written again.
-- Read with FINAL: what is there is being erased, and is erased once erased_at is set.
CREATE TABLE IF NOT EXISTS erasures (
    vehicle_id String,
    until DateTime64(3, 'UTC'),
    -- The record of `locations` that asked for it.
    partition UInt16,
    epoch UInt16,
    source_offset UInt64,
    -- What was found: rows of `fixes` and `arrivals`, and the hours whose statistics have
    -- to be computed anew.
    rows UInt64,
    hours Array(DateTime('UTC')),
    erased_at DateTime('UTC')
) ENGINE = ReplacingMergeTree(erased_at)
ORDER BY (partition, epoch, source_offset);
