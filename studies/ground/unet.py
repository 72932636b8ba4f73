"""A very small U-Net, for studies of maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from margins.encoders.convolution import convolution


class UNet(nn.Module):
    """Two halvings and two doublings, with what each size had on the way down joined on the way up.

    Args:
        num_in: channels of the images.
        num_out: channels of the maps.
        width: channels at full size; twice and three times as many below.
        start: value of all maps before training, about; of logits, that of the share that is to be found.
        seed: of the first weights.
    """

    def __init__(self, num_in: int, num_out: int, *, width: int = 8, start: float = 0.0, seed: int) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self.full = _block(num_in, width, draws)
        self.middle = _block(width, 2 * width, draws)
        self.bottom = _block(2 * width, 3 * width, draws)
        self.middle_up = _block(5 * width, 2 * width, draws)
        self.full_up = _block(3 * width, width, draws)
        self.side = _last(2 * width, num_out, start, draws)
        self.last = _last(width, num_out, start, draws)

    def forward(self, images: Tensor) -> Tensor:
        """Maps [B, num_out, H, W] of images [B, num_in, H, W]; H and W divide by 4."""
        return self.last(self.features(images)[0])

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the last layer sees at full size, and what the side output sees at half of it."""
        # Processors convolve faster with the channels last.
        full = self.full(images.contiguous(memory_format=torch.channels_last))
        half = self.middle(functional.max_pool2d(full, 2))
        bottom = self.bottom(functional.max_pool2d(half, 2))
        half = self.middle_up(torch.cat([_doubled(bottom), half], 1))
        return self.full_up(torch.cat([_doubled(half), full], 1)), half


def _doubled(maps: Tensor) -> Tensor:
    return functional.interpolate(maps, scale_factor=2.0, mode="nearest")


def _block(num_in: int, num_out: int, draws: torch.Generator) -> nn.Sequential:
    layer = convolution(num_in, num_out, kernel=3, step=1, generator=draws)
    return nn.Sequential(layer, nn.GroupNorm(1, num_out), nn.ReLU())


def _last(num_in: int, num_out: int, start: float, draws: torch.Generator) -> nn.Conv2d:
    layer = nn.Conv2d(num_in, num_out, 1, device="meta").to_empty(device="cpu")
    nn.init.normal_(layer.weight, std=0.1 * num_in**-0.5, generator=draws)
    nn.init.constant_(layer.bias, start)
    return layer
