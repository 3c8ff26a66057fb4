-- Arrivals: a row for each time that a fix came, accepted or not; read with FINAL.
CREATE TABLE IF NOT EXISTS arrivals (
    vehicle_id LowCardinality(String) CODEC(ZSTD(1)),
    device_time DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    -- The record of `locations` by which it came, and which of its arrivals this is.
    epoch UInt16 CODEC(ZSTD(1)),
    source_offset UInt64 CODEC(Delta, ZSTD(1)),
    n UInt16 CODEC(ZSTD(1)),
    session_id UInt64 CODEC(ZSTD(1)),
    sequence Int64 CODEC(DoubleDelta, ZSTD(1)),
    -- Why it was not accepted, empty if it was.
    rule LowCardinality(String) CODEC(ZSTD(1)),
    -- What came, of fixes that do not stand in the table fixes; `has` says which of the
    -- values are there, bits as in history/row.
    has UInt16 CODEC(ZSTD(1)),
    mocked Bool CODEC(ZSTD(1)),
    raw_lat_e7 Int32 CODEC(ZSTD(1)),
    raw_lon_e7 Int32 CODEC(ZSTD(1)),
    raw_speed_cm_s Int32 CODEC(ZSTD(1)),
    raw_heading_ddeg Int32 CODEC(ZSTD(1)),
    accuracy_dm Int32 CODEC(ZSTD(1)),
    altitude_dm Int32 CODEC(ZSTD(1))
) ENGINE = ReplacingMergeTree
PARTITION BY toDate(device_time)
ORDER BY (toStartOfHour(device_time), vehicle_id, device_time, epoch, source_offset, n)
SETTINGS non_replicated_deduplication_window = 1000;
