"""The second half of predict-refine: a small network that corrects a map by the map itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from margins.cards import Card, carded
from margins.encoders.convolution import convolution
from margins.errors import MarginsError, describe


@carded(
    Card(
        name="Residual refinement (predict-refine)",
        summary="a coarse map of logits with blurred or broken edges; both maps get the same loss",
        paper="Qin et al., Boundary-Aware Segmentation Network for Mobile and Web Applications, 2021, "
        "arXiv 2101.04704",
        kind="head",
        stations=("score",),
        targets=("maps",),
        entry=135,
        tests=("tests/test_maps.py::test_an_untrained_refinement_changes_nothing_and_learns",),
        study="hybrid_mask",
    )
)
class ResidualRefine(nn.Module):
    r"""$logits + R(logits)$ with R a small encoder-decoder: coarse logits in, refined logits out.

    Use it behind any network of dense predictions, with `DeepSupervision` on both maps. Not behind a network
    whose map is sharp already: it sees the map alone, not the input, and can only tidy it.

    R has `depth` halvings with as many doublings, a convolution with group normalisation at every size, and
    what each size had on the way down joined on the way up. Its last convolution starts at 0.

    Args:
        channels: of the map.
        width: channels inside.
        depth: halvings, >= 1; sides of any length do.
        generator: draws the first weights.

    Raises:
        MarginsError: a size that is not positive; a map of other channels.

    Example:
        >>> refine = ResidualRefine(1, generator=torch.Generator().manual_seed(0))
        >>> coarse = torch.ones(2, 1, 9, 14)
        >>> torch.equal(refine(coarse), coarse)
        True

    Reduces to: the coarse map, as long as R is 0.

    References:
        Qin et al. 2021, arXiv 2101.04704.
    """

    def __init__(
        self, channels: int = 1, *, width: int = 16, depth: int = 2, generator: torch.Generator
    ) -> None:
        super().__init__()
        for name, value in (("channels", channels), ("width", width), ("depth", depth)):
            if value < 1:
                raise MarginsError(name, expected="at least 1", received=str(value))
        self.channels = channels
        self.first = convolution(channels, width, kernel=3, step=1, generator=generator)
        self.down = nn.ModuleList(_block(width, width, generator) for _ in range(depth))
        self.bridge = _block(width, width, generator)
        self.up = nn.ModuleList(_block(2 * width, width, generator) for _ in range(depth))
        self.last = nn.Conv2d(width, channels, 3, padding=1, device="meta").to_empty(device="cpu")
        for start in self.last.parameters():
            nn.init.zeros_(start)

    def forward(self, logits: Tensor) -> Tensor:
        """Refined logits [B, C, H, W] of coarse logits [B, C, H, W]."""
        if logits.ndim != 4 or logits.shape[1] != self.channels:
            raise MarginsError(
                "logits", expected=f"[B, {self.channels}, H, W] floats", received=describe(logits)
            )
        maps, joined = self.first(logits), list[Tensor]()
        for block in self.down:
            maps = block(maps)
            joined.append(maps)
            maps = functional.max_pool2d(maps, 2, ceil_mode=True)
        maps = self.bridge(maps)
        for block, beside in zip(self.up, reversed(joined), strict=True):
            larger = functional.interpolate(maps, size=beside.shape[2:], mode="bilinear", align_corners=False)
            maps = block(torch.cat([larger, beside], 1))
        return logits + self.last(maps)


def _block(num_in: int, num_out: int, generator: torch.Generator) -> nn.Sequential:
    return nn.Sequential(
        convolution(num_in, num_out, kernel=3, step=1, generator=generator),
        nn.GroupNorm(1, num_out),
        nn.ReLU(),
    )
