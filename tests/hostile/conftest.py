"""The root directory of hostile guests, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from harness import build_root


@pytest.fixture(scope="session")
def hostile_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    return build_root(tmp_path_factory.mktemp("hostile") / "root")
