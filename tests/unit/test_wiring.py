"""What an installation refuses before it starts."""

from pathlib import Path

import pytest

from data_contracts.errors import BadInput
from pipelines.wiring import Line, Settings


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
