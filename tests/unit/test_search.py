"""The search that the erasure drills rely on finds a text however a file keeps it."""

import gzip
import sqlite3
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.search import traces_of

TEXT = "my kettle sings at dawn"


def test_a_text_is_found_in_what_compresses_logs_and_frees(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    pq.write_table(pa.table({"row": [TEXT] * 500}), folder / "rows.parquet", compression="zstd", write_statistics=False)
    (folder / "old.log.gz").write_bytes(gzip.compress(TEXT.encode() * 3))
    (folder / ".left.part").write_text(f"half a {TEXT} and")
    (folder / "other.txt").write_text("another kettle")
    db = sqlite3.connect(folder / "freed.sqlite")
    db.executescript(f"pragma secure_delete = off; create table t (x); insert into t values ('{TEXT}'); delete from t;")
    db.close()
    assert traces_of(folder, "no such text", TEXT) == [".left.part", "freed.sqlite", "old.log.gz", "rows.parquet"]
