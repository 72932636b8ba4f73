"""A critic of patches: it learns to tell true maps from predicted ones, and the predictions learn to pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from margins.cards import Card, LossCard, carded
from margins.engine.sources import at_least_float32, full_precision
from margins.errors import MarginsError, describe
from margins.losses.forms.base import Loss, in_range

Adversary = Literal["least_squares", "hinge"]

_PAPER = (
    "Boss and Lensch, Single Image BRDF Parameter Estimation with a Conditional Adversarial Network, 2019, "
    "arXiv 1910.05148"
)


@dataclass(frozen=True)
class Patches:
    """What the critic of one scale says.

    Args:
        scores: [B, 1, h, w], a score a patch; high for true.
        features: what its layers saw on the way, each [B, ...].
    """

    scores: Float[Tensor, "maps one height width"]
    features: tuple[Tensor, ...]


@carded(
    Card(
        name="Multi-scale patch discriminator",
        summary="tells true maps from predicted ones patch by patch, at several sizes; with PatchAdversarial",
        paper="Wang et al., High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs, "
        "2018, arXiv 1711.11585",
        kind="head",
        stations=("score",),
        targets=("maps",),
        entry=103,
        tests=("tests/test_forward_model.py::test_every_scale_sees_the_maps_at_half_the_size",),
        study="rendering_loss",
    )
)
class PatchDiscriminator(nn.Module):
    """Convolutional critics of maps beside the input they were made for, one a scale.

    Use it with `PatchAdversarial`; it has an optimiser of its own. Every scale sees the maps at half the size
    of the one before.

    Args:
        channels: of the input and of the maps together.
        num_scales: critics, >= 1.
        width: channels of the first layer; each further one has twice as many.
        depth: halvings inside a critic, >= 1.
        generator: draws the first weights.

    Raises:
        MarginsError: a number that is not positive; maps that do not fit, or too small for the scales.

    Example:
        >>> critic = PatchDiscriminator(4, num_scales=2, generator=torch.Generator().manual_seed(0))
        >>> [p.scores.shape[2:] for p in critic(torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32))]
        [torch.Size([8, 8]), torch.Size([4, 4])]

    References:
        Wang et al. 2018, arXiv 1711.11585; patches: Isola et al. 2017, arXiv 1611.07004.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_scales: int = 3,
        width: int = 16,
        depth: int = 2,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        numbers = {"channels": channels, "num_scales": num_scales, "width": width, "depth": depth}
        for name, number in numbers.items():
            if number < 1:
                raise MarginsError(name, expected="at least 1", received=str(number))
        self.channels, self.depth = channels, depth
        self.critics = nn.ModuleList(_critic(channels, width, depth, generator) for _ in range(num_scales))

    def forward(
        self,
        given: Float[Tensor, "maps given height width"],
        maps: Float[Tensor, "maps channels height width"],
    ) -> list[Patches]:
        """What each scale says of maps for the given input, largest first."""
        fits = given.ndim == 4 and maps.ndim == 4 and given.shape[::2] == maps.shape[::2]
        if not fits or given.shape[1] + maps.shape[1] != self.channels or given.shape[3] != maps.shape[3]:
            raise MarginsError(
                "maps", expected=f"[B, C, H, W] twice, with {self.channels} channels together",
                received=f"{describe(given)} and {describe(maps)}",
            )  # fmt: skip
        seen = torch.cat([given, maps], 1)
        smallest = 2 ** (len(self.critics) - 1 + self.depth)
        if min(seen.shape[2:]) < smallest:
            raise MarginsError(
                "maps", expected=f"sides of at least {smallest} for this many scales and halvings",
                received=describe(maps),
            )  # fmt: skip
        found: list[Patches] = []
        for place, critic in enumerate(self.critics):
            seen = functional.avg_pool2d(seen, 2) if place else seen
            found.append(_patches(critic, seen))
        return found


def _patches(critic: nn.Module, seen: Tensor) -> Patches:
    features: list[Tensor] = []
    for layer in critic.children():
        seen = layer(seen)
        features.append(seen)
    return Patches(features[-1], tuple(features[:-1]))


def _critic(channels: int, width: int, depth: int, generator: torch.Generator) -> nn.Sequential:
    """Halving convolutions and one that scores."""
    layers: list[nn.Module] = []
    num_in = channels
    for level in range(depth):
        num_out = width * 2**level
        layers.append(nn.Sequential(_convolution(num_in, num_out, 4, 2, generator), nn.LeakyReLU(0.2)))
        num_in = num_out
    return nn.Sequential(*layers, _convolution(num_in, 1, 3, 1, generator))


def _convolution(num_in: int, num_out: int, kernel: int, step: int, generator: torch.Generator) -> nn.Conv2d:
    layer = nn.Conv2d(num_in, num_out, kernel, stride=step, padding=1, device="meta").to_empty(device="cpu")
    nn.init.kaiming_normal_(layer.weight, a=0.2, generator=generator)
    nn.init.zeros_(layer.bias) if layer.bias is not None else None
    return layer


@carded(
    LossCard(
        name="Patch adversarial loss",
        summary="maps that look like true ones where an absolute error blurs them; a small weight beside it",
        paper=_PAPER,
        entry=103,
        targets=("maps",),
        distributed="independent",
        comparable=False,
        collapse="none: its value depends on the critic",
        limits=("features = 0, least squares, critic sure of all: one half",),
        tests=("tests/test_forward_model.py::test_the_two_sides_of_the_adversarial_loss_are_as_defined",),
        study="rendering_loss",
    )
)
class PatchAdversarial(Loss):
    r"""What the critic's patches say against predicted maps, plus the distance of its features.

    Use it with a small weight (0.01) beside a loss of the maps themselves, and train the critic on
    `of_discriminator` in turn. Not where errors must be small rather than plausible: it can raise them.

    Least squares: $\frac12 (D(fake) - 1)^2$ for the maps, $\frac12 (D(true) - 1)^2 + \frac12 D(fake)^2$ for
    the critic. Hinge: $-D(fake)$ and $[1 - D(true)]_+ + [1 + D(fake)]_+$. Features: the mean absolute
    difference of each layer's features from those of the true maps, which are constants here. Each is a mean
    over patches or numbers, then over layers, then over scales.

    Args:
        adversary: "least_squares" or "hinge".
        features: weight of the features' distance, >= 0.

    Raises:
        MarginsError: an unknown adversary, a negative weight, sides of another number of scales.

    References:
        Boss and Lensch 2019, arXiv 1910.05148; least squares: Mao et al. 2017, arXiv 1611.04076; hinge: Lim
        and Ye 2017, arXiv 1705.02894; features: Wang et al. 2018, arXiv 1711.11585.

    Example:
        >>> unsure = [Patches(torch.zeros(1, 1, 2, 2), ())]
        >>> loss = PatchAdversarial()
        >>> loss(unsure, unsure), loss.of_discriminator(unsure, unsure)
        (tensor(0.5000), tensor(0.5000))
    """

    form = "outputs"

    def __init__(self, adversary: Adversary = "least_squares", *, features: float = 1.0) -> None:
        super().__init__(reduction="mean")
        if adversary not in get_args(Adversary):
            raise MarginsError(
                "adversary", expected=f"one of {get_args(Adversary)}", received=repr(adversary)
            )
        self.adversary: Adversary = adversary
        self.features = in_range("features", features, low=0)

    def forward(self, fake: Sequence[Patches], true: Sequence[Patches]) -> Float[Tensor, ""]:
        """The loss of predicted maps.

        Args:
            fake: what the critic says of them, scale by scale.
            true: what it says of the true maps.
        """
        _check_scales(fake, true)
        with full_precision(fake[0].scores.device):
            fooled = _over_scales([self._of_maps(at_least_float32(f.scores)) for f in fake])
            if self.features == 0:
                return fooled
            gaps = [_features_gap(f, t) for f, t in zip(fake, true, strict=True)]
            return fooled + self.features * _over_scales(gaps)

    def of_discriminator(self, fake: Sequence[Patches], true: Sequence[Patches]) -> Float[Tensor, ""]:
        """The loss of the critic; make `fake` from detached maps.

        Args:
            fake: what the critic says of predicted maps, scale by scale.
            true: what it says of the true maps.
        """
        _check_scales(fake, true)
        with full_precision(fake[0].scores.device):
            pairs = zip(fake, true, strict=True)
            scores = [(at_least_float32(f.scores), at_least_float32(t.scores)) for f, t in pairs]
            if self.adversary == "hinge":
                sides = [(1 + f).relu().mean() + (1 - t).relu().mean() for f, t in scores]
            else:
                sides = [0.5 * (f.square().mean() + (t - 1).square().mean()) for f, t in scores]
            return _over_scales(sides)

    def _of_maps(self, scores: Tensor) -> Tensor:
        return -scores.mean() if self.adversary == "hinge" else 0.5 * (scores - 1).square().mean()


def _features_gap(fake: Patches, true: Patches) -> Tensor:
    pairs = list(zip(fake.features, true.features, strict=True))
    gaps = [(at_least_float32(f) - at_least_float32(t.detach())).abs().mean() for f, t in pairs]
    return _over_scales(gaps) if gaps else fake.scores.new_zeros(())


def _over_scales(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()


def _check_scales(fake: Sequence[Patches], true: Sequence[Patches]) -> None:
    if not fake or len(fake) != len(true):
        raise MarginsError(
            "true", expected=f"as many scales as fake, at least one: {len(fake)}", received=str(len(true))
        )
