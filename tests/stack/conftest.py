"""A home for each of the stack's tests, and nothing of it left afterwards."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.stack.actors import kill_everything, servers_of


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home that does not exist yet, below a folder that only we can enter."""
    home = tmp_path / "home"
    yield home
    left = servers_of(tmp_path)
    kill_everything(tmp_path)
    psutil.wait_procs(left, timeout=10)
