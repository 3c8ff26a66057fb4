-- Fixes: one row for each (vehicle, device time) after merges, the truth of history/row.
CREATE TABLE IF NOT EXISTS fixes (
    vehicle_id LowCardinality(String) CODEC(ZSTD(1)),
    device_time DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    -- All ones minus epoch (16 bits), kind (4 bits) and source offset (44 bits): the
    -- greatest wins.
    rank UInt64 CODEC(Delta, ZSTD(1)),
    partition UInt16 CODEC(ZSTD(1)),
    -- Which of the values below are there, bits as in history/row.
    has UInt16 CODEC(ZSTD(1)),
    verdict UInt8 CODEC(ZSTD(1)),
    mocked Bool CODEC(ZSTD(1)),
    raw_lat_e7 Int32 CODEC(DoubleDelta, ZSTD(1)),
    raw_lon_e7 Int32 CODEC(DoubleDelta, ZSTD(1)),
    raw_speed_cm_s Int32 CODEC(T64, ZSTD(3)),
    raw_heading_ddeg Int32 CODEC(T64, ZSTD(3)),
    accuracy_dm Int32 CODEC(T64, ZSTD(1)),
    altitude_dm Int32 CODEC(Delta, ZSTD(1)),
    -- Corrected less raw, and display less corrected.
    lat_diff_e7 Int32 CODEC(T64, ZSTD(3)),
    lon_diff_e7 Int32 CODEC(T64, ZSTD(3)),
    display_lat_diff_e7 Int32 CODEC(T64, ZSTD(3)),
    display_lon_diff_e7 Int32 CODEC(T64, ZSTD(3)),
    speed_cm_s Int32 CODEC(T64, ZSTD(3)),
    heading_ddeg Int32 CODEC(T64, ZSTD(3)),
    epoch UInt16 ALIAS bitShiftRight(bitNot(rank), 48),
    kind Enum8('final' = 1, 'open' = 2, 'late' = 3, 'set_aside' = 4) ALIAS CAST(bitAnd(bitShiftRight(bitNot(rank), 44), 15), 'Enum8(\'final\' = 1, \'open\' = 2, \'late\' = 3, \'set_aside\' = 4)'),
    source_offset UInt64 ALIAS bitAnd(bitNot(rank), 17592186044415)
) ENGINE = ReplacingMergeTree(rank)
PARTITION BY toDate(device_time)
ORDER BY (toStartOfHour(device_time), vehicle_id, device_time)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS gaps (
    partition UInt16,
    first_offset UInt64,
    last_offset UInt64,
    reason LowCardinality(String),
    recorded_at DateTime DEFAULT now()
) ENGINE = ReplacingMergeTree
ORDER BY (partition, first_offset);
