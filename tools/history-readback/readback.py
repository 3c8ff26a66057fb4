"""Reads a lake of history with tools that are not ours, and compares.

usage: readback.py LAKE DOCS SENT STARLING

The lines of code of docs/history.md are run as they stand there. SENT is what
`starling simulate --json` printed.
"""

import contextlib
import glob
import io
import json
import re
import subprocess
import sys

import duckdb
import pyarrow.dataset
import pyarrow.parquet
import geopandas
import geoparquet_pydantic
import movingpandas

lake, docs, sent, starling = sys.argv[1:]
files = sorted(glob.glob(f"{lake}/dt=*/hour=*/part-*.parquet"))
blocks = re.findall(r"```(sql|python)\n(.*?)```", open(docs).read(), re.S)
sql = [b for language, b in blocks if language == "sql" and "read_parquet" in b]
python = [b for language, b in blocks if language == "python"]
assert len(sql) == 1 and len(python) == 3, (len(sql), len(python))


def need(ok, text):
    if not ok:
        sys.exit(f"history-readback: {text}")
    print("ok:", text)


# DuckDB, by the view of the docs: each fix once.
db = duckdb.connect()
db.sql("SET TimeZone = 'UTC'")
db.sql(sql[0].replace("'lake/", f"'{lake}/"))
total, different, vehicles = db.sql(
    "SELECT count(*), count(DISTINCT (vehicle_id, device_time)), count(DISTINCT vehicle_id) FROM fixes"
).fetchone()
report = json.load(open(sent))
resent = int(report["fixes"]) - total
need(total == different, f"DuckDB's view has each of {total} fixes of {vehicles} vehicles once")
need(0 <= resent <= 60 * int(report["resends"]), f"all of the {report['fixes']} fixes sent but {resent} that were sent twice")

# starling's own reader agrees with DuckDB about every vehicle.
by_vehicle = {}
for vehicle, *place in db.sql("SELECT vehicle_id, longitude_e7, latitude_e7 FROM fixes ORDER BY vehicle_id, device_time").fetchall():
    by_vehicle.setdefault(vehicle, []).append([e7 / 1e7 for e7 in place])
for vehicle, theirs in list(by_vehicle.items())[:10]:
    out = subprocess.run(
        [starling, "track", vehicle, "--lake", lake, "--format", "geojson"], check=True, capture_output=True, text=True
    ).stdout
    own = [f["geometry"]["coordinates"] for f in json.loads(out)["features"]]
    assert len(own) == len(theirs), (vehicle, len(own), len(theirs))
    assert all(abs(a - b) < 1e-9 for x, y in zip(own, theirs) for a, b in zip(x, y)), vehicle
need(True, "starling track has the same positions of ten vehicles as DuckDB")

# pyarrow, GeoPandas and MovingPandas, by the lines of the docs.
found = {}
for code in python:
    exec(code.replace("'lake'", repr(lake)).replace("'lake/", f"'{lake}/"), found)
rows = sum(pyarrow.parquet.read_metadata(f).num_rows for f in files)
need(found["dataset"].count_rows() == rows, f"pyarrow's dataset has all {rows} rows")
frame = found["fixes"]
need(isinstance(frame, geopandas.GeoDataFrame) and frame.crs.to_string() == "OGC:CRS84", "GeoPandas knows the coordinates' system")
shown_lon = frame["longitude_e7"].fillna(frame["raw_longitude_e7"]) / 1e7
shown_lat = frame["latitude_e7"].fillna(frame["raw_latitude_e7"]) / 1e7
off = max((frame.geometry.x - shown_lon).abs().max(), (frame.geometry.y - shown_lat).abs().max())
need(off <= 2**-25 + 1e-12, f"GeoPandas' points are the positions, {off:.1e} degree off at most")
need(len(found["tracks"].trajectories) > 0 and isinstance(found["tracks"], movingpandas.TrajectoryCollection), f"MovingPandas makes {len(found['tracks'].trajectories)} trajectories")

# The metadata of every file, by a validator that is not ours.
for f in files:
    file = pyarrow.parquet.ParquetFile(f)
    with contextlib.redirect_stdout(io.StringIO()):
        assert geoparquet_pydantic.validate_geoparquet_file(file), f
    geo = json.loads(file.schema_arrow.metadata[b"geo"])
    bounds = geopandas.read_parquet(f).total_bounds
    assert list(bounds) == geo["columns"]["geometry"]["bbox"], (f, bounds, geo)
need(True, f"GeoParquet's metadata of {len(files)} files is valid, and bbox is what the points span")
