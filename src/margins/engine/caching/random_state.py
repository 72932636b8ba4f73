"""The state of all generators that a computation may draw from, recorded and restored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RandomState:
    """What torch's own generators and some others were about to draw."""

    cpu: Tensor
    devices: tuple[tuple[torch.device, Tensor], ...]
    others: tuple[tuple[torch.Generator, Tensor], ...]

    @classmethod
    def now(
        cls, devices: Iterable[torch.device] = (), generators: Iterable[torch.Generator] = ()
    ) -> RandomState:
        """The present state.

        Args:
            devices: accelerators whose generators count; the CPU's always does.
            generators: further ones.
        """
        accelerators = [d for d in devices if d.type not in ("cpu", "meta")]
        return cls(
            torch.get_rng_state(),
            tuple((d, torch.get_device_module(d).get_rng_state(d)) for d in accelerators),
            tuple((g, g.get_state()) for g in generators),
        )

    def restore(self) -> None:
        """Makes every generator draw as it was about to."""
        torch.set_rng_state(self.cpu)
        for device, state in self.devices:
            torch.get_device_module(device).set_rng_state(state, device)
        for generator, state in self.others:
            generator.set_state(state)
