"""Random numbers as pure functions of what they are for, so that a restart has none to remember."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import contextmanager

import torch


def seed_of(*parts: int | str) -> int:
    """A seed in [0, 2^63) for a purpose, e.g. `seed_of(run_seed, "draw", epoch)`; near parts give far seeds.

    Example:
        >>> seed_of(0, "draw", 1) == seed_of(0, "draw", 1) != seed_of(0, "draw", 2)
        True
    """
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_of(*parts: int | str) -> torch.Generator:
    """A generator on the CPU for a purpose."""
    return torch.Generator().manual_seed(seed_of(*parts))


@contextmanager
def global_state_kept() -> Generator[None]:
    """Gives the caller torch's global random state back: pretrained encoders draw their dropout from it."""
    with torch.random.fork_rng():
        yield


def reseed(generator: torch.Generator, *parts: int | str) -> None:
    """Seeds a run's own generator, and torch's global ones for modules of others, for one purpose."""
    seed = seed_of(*parts)
    generator.manual_seed(seed)
    torch.default_generator.manual_seed(seed)  # `torch.manual_seed` asks every kind of device and is slow
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
