"""What an installation refuses before it starts."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import BadInput
from pipelines.settings import Settings
from pipelines.wiring import Line


def test_a_trust_root_among_the_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "home")
    for place in ("home/allowed_signers", "home/deep/allowed_signers", "link/allowed_signers"):
        line = Line(Settings(home=tmp_path / "home", trust_root=tmp_path / place))
        with pytest.raises(BadInput, match="ASSAY_TRUST_ROOT"):
            _ = line.signatures


def test_a_trust_root_beside_the_state_is_taken(tmp_path: Path) -> None:
    line = Line(Settings(home=tmp_path / "home", trust_root=tmp_path / "home-trust" / "allowed_signers"))
    assert line.signatures is line.signatures


@pytest.mark.parametrize(
    ("name", "kind", "workers"), [("local", "Local", 1), ("local:4", "Local", 4), ("ray:3", "Ray", 3)]
)
def test_the_setting_names_the_engine_of_row_work(tmp_path: Path, name: str, kind: str, workers: int) -> None:
    engine: Any = Line(Settings(home=tmp_path, engine=name)).engine
    assert (type(engine).__name__, engine.workers) == (f"{kind}BatchEngine", workers)


@pytest.mark.parametrize("name", ["", "spark", "local:0", "local:", "ray:two", "ray://head:10001"])
def test_an_engine_that_there_is_not_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"ASSAY_ENGINE is .* give local, local:N \(processes\), ray or ray:N"):
        _ = Line(Settings(home=tmp_path, engine=name)).engine


def test_what_a_killed_ray_cluster_left_goes_when_the_next_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resources import ray_cluster

    monkeypatch.setattr(ray_cluster.tempfile, "gettempdir", lambda: str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    names = [f"assay-ray-{ended.pid}-a", f"assay-ray-{os.getpid()}-b", "assay-ray-old", "another"]
    for name in names:
        (tmp_path / name).mkdir()
    ray_cluster._clear_leftovers()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([names[1], names[3], names[2]])
