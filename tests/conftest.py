"""What holds for every test: one thread for torch, and where the public data sets are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

# At import, so that it holds before any test of any module runs: with two threads on a busy machine small products
# are many times slower.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_directory() -> Path:
    """The public data sets, which are not part of the project; skips where they are absent."""
    directory = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not directory.is_dir():
        pytest.skip("the public data sets are absent: ../shared/data beside the checkout")
    return directory
