"""Shapes in signatures are checked at run time in tests, and only there; every test uses one thread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import torch
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from gloo_workers import Pool

# Not the taxonomy: what it refuses, it refuses by name for values of any type, and its own tests show it.
install_import_hook(["margins.engine", "margins.losses", "margins.targets"], "typecheck.checked")

# Many small tensors: threads of several test processes would only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Pool]]:
    """One pool of processes for each world size, for all tests."""
    from gloo_workers import Pool  # not before the hook above

    with (
        Pool(2, tmp_path_factory.mktemp("two")) as two,
        Pool(3, tmp_path_factory.mktemp("three")) as three,
    ):
        yield {2: two, 3: three}
