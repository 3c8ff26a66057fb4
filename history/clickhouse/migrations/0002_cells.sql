-- How often each hour of device time has been written to, and at which of these
-- numbers its statistics were computed last.
CREATE TABLE IF NOT EXISTS touched (
    hour DateTime('UTC'),
    touches UInt64
) ENGINE = SummingMergeTree
ORDER BY hour;

CREATE TABLE IF NOT EXISTS computed (
    hour DateTime('UTC'),
    touches UInt64
) ENGINE = ReplacingMergeTree(touches)
ORDER BY hour;

-- Statistics of cells, read with FINAL and fixes > 0: zeros stand over a cell that a
-- later computation no longer has.
CREATE TABLE IF NOT EXISTS cell_hours (
    hour DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    cell UInt64 CODEC(Delta, ZSTD(1)),
    fixes UInt64 CODEC(T64, ZSTD(1)),
    vehicles UInt64 CODEC(T64, ZSTD(1)),
    speeds UInt64 CODEC(T64, ZSTD(1)),
    mean_speed_cm_s Float64 CODEC(ZSTD(1)),
    p50_speed_cm_s Int32 CODEC(T64, ZSTD(1)),
    p85_speed_cm_s Int32 CODEC(T64, ZSTD(1)),
    p95_speed_cm_s Int32 CODEC(T64, ZSTD(1)),
    version UInt64 CODEC(ZSTD(1))
) ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, cell);

CREATE TABLE IF NOT EXISTS cell_minutes (
    minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    cell UInt64 CODEC(Delta, ZSTD(1)),
    fixes UInt64 CODEC(T64, ZSTD(1)),
    vehicles UInt64 CODEC(T64, ZSTD(1)),
    speeds UInt64 CODEC(T64, ZSTD(1)),
    mean_speed_cm_s Float64 CODEC(ZSTD(1)),
    p50_speed_cm_s Int32 CODEC(T64, ZSTD(1)),
    p85_speed_cm_s Int32 CODEC(T64, ZSTD(1)),
    p95_speed_cm_s Int32 CODEC(T64, ZSTD(1)),
    version UInt64 CODEC(ZSTD(1))
) ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, cell);
