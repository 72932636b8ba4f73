"""Images of one size as uint8, from memory or from files, and what their encoders share."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from margins.data.columns import InputKind
from margins.data.extras import extra
from margins.data.frame import Frame
from margins.encoders.base import Encoder, EncoderSettings, StoredPreparation, generator_on
from margins.encoders.cells import check_kinds, column_of, rows_in_words
from margins.encoders.inputs import TensorRows
from margins.errors import MarginsError

if TYPE_CHECKING:
    import polars as pl

_LARGEST_SIDE = 224
_PART_ROWS = 1024
# Luma of ITU-R BT.601, as image programs make grey of colour.
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, eq=False)
class Images(TensorRows):
    """Images [N, channels, height, width] uint8."""

    pixels: Tensor


class ImagePreparation(StoredPreparation):
    """A column of images to pixels of one size, grey or in colour."""

    column: str
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    channels: Literal[1, 3]

    def __call__(self, frame: Frame) -> Images:
        """All images of the frame, decoded, resized and in memory."""
        size = (self.height, self.width)
        pixels = torch.empty((len(frame), self.channels, *size), dtype=torch.uint8)
        for start, part in _parts(frame, self.column):
            if isinstance(part, Tensor):
                pixels[start : start + len(part)] = resized(in_channels(part, self.channels), size)
            else:
                for k, image in enumerate(part):
                    pixels[start + k] = resized(in_channels(image[None], self.channels), size)[0]
        return Images(pixels)


class ImageSettings(EncoderSettings):
    """What the settings of all image encoders hold.

    Args:
        size: height and width of the images; None for the most common size of the training images, scaled
            down so that no side is above 224. It is fixed with the preparation and saved with the model.
        shift: in training, images are moved by up to this many pixels in each direction at random, and their
            border pixels repeated; 0 for none.
    """

    size: tuple[int, int] | None = None
    shift: int = Field(default=2, ge=0)

    def prepare(self, frame: Frame, inputs: Mapping[str, InputKind]) -> ImagePreparation:
        """The size, and whether any training image has colour."""
        check_kinds(self.name, inputs, "image")
        if len(inputs) > 1:
            raise MarginsError(
                "inputs", expected="one column of images", received=", ".join(inputs), fix="choose one"
            )
        column = next(iter(inputs))
        if self.size is not None and min(self.size) < 1:
            raise MarginsError("size", expected="two numbers, at least 1", received=str(self.size))
        shapes: Counter[tuple[int, ...]] = Counter()
        for _, part in _parts(frame, column):
            shapes.update(
                [tuple(part.shape[1:])] * len(part) if isinstance(part, Tensor) else map(_shape, part)
            )
        if not shapes:
            raise MarginsError("frame", expected="at least one image", received="no rows")
        sizes: Counter[tuple[int, int]] = Counter()
        for (_, height, width), num in shapes.items():
            sizes[height, width] += num
        # Of equally common sizes the smaller: deterministic, and cheaper.
        common = min(sizes, key=lambda size: (-sizes[size], size))
        height, width = self.size or _scaled_down(*common)
        is_grey = all(channels <= 2 for channels, _, _ in shapes)
        return ImagePreparation(column=column, height=height, width=width, channels=1 if is_grey else 3)

    def restore(self, data: Mapping[str, Any]) -> ImagePreparation:
        """The preparation that `to_data` wrote."""
        return ImagePreparation.from_data(data)


class ImageEncoder(Encoder[Images]):
    """Pixels normalised by the training mean and deviation of each channel, moved at random in training.

    Args:
        channels: 1 or 3.
        shift: pixels by which training images are moved at most.
        generator: draws the moves.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, *, channels: int, shift: int, generator: torch.Generator) -> None:
        super().__init__()
        self.shift, self.generator = shift, generator
        self.register_buffer("mean", torch.full((channels,), 127.5))
        self.register_buffer("deviation", torch.full((channels,), 127.5))

    def fit(self, inputs: Images) -> None:
        """Mean and deviation of each channel, exact, from counts of the 256 values; deviation at least 1."""
        values = torch.arange(256, dtype=torch.float64)
        for channel in range(len(self.mean)):
            counts = torch.zeros(256, dtype=torch.int64)
            for part in inputs.pixels[:, channel].split(_PART_ROWS):
                counts += torch.bincount(part.flatten().long(), minlength=256).cpu()
            share = counts.double() / counts.sum()
            mean = (share * values).sum()
            self.mean[channel] = mean
            self.deviation[channel] = (share * (values - mean).square()).sum().sqrt().clamp(min=1)

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Embeddings [B, width] of normalised images [B, channels, height, width]."""

    def forward(self, inputs: Images) -> Tensor:
        """Embeddings [B, width]."""
        if not len(inputs):
            return self.mean.new_zeros(0, self.width)
        return self.embed(self.seen(inputs.pixels))

    def seen(self, pixels: Tensor) -> Tensor:
        """Pixels [B, channels, height, width] as they are embedded: moved in training, normalised."""
        if self.training and self.shift:
            pixels = moved(pixels, self.shift, generator=generator_on(pixels.device, self.generator))
        mean, deviation = self.mean[:, None, None], self.deviation[:, None, None]
        return (pixels.float() - mean) / deviation


def moved(pixels: Tensor, shift: int, *, generator: torch.Generator) -> Tensor:
    """Each image moved by up to `shift` pixels in both directions, the border pixels repeated.

    Example:
        >>> image = torch.arange(4).reshape(1, 1, 2, 2)
        >>> moved(image, 0, generator=torch.Generator()).tolist()
        [[[[0, 1], [2, 3]]]]
    """
    (num, channels, height, width), device = pixels.shape, pixels.device
    moves = torch.randint(-shift, shift + 1, (2, num, 1), generator=generator, device=device)
    rows = (torch.arange(height, device=device) + moves[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=device) + moves[1]).clamp(0, width - 1)
    image = torch.arange(num, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[:, None, None]
    return pixels[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def in_channels(images: Tensor, channels: int) -> Tensor:
    """Images [N, 1 to 4, h, w] as grey (1) or colour (3); transparency is left out."""
    images = images[:, :1] if images.shape[1] <= 2 else images[:, :3]
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    luma = torch.tensor(_LUMA)[:, None, None]
    return (images.float() * luma).sum(1, keepdim=True).round().to(torch.uint8)


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images [N, c, h, w] uint8 in this size, smoothed when they shrink."""
    if tuple(images.shape[2:]) == size or not len(images):
        return images.reshape(*images.shape[:2], *size)
    scaled = nn.functional.interpolate(images.float(), size=size, mode="bilinear", antialias=True)
    return scaled.round().clamp(0, 255).to(torch.uint8)


def _scaled_down(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, _LARGEST_SIDE / max(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def _shape(image: Tensor) -> tuple[int, ...]:
    return tuple(image.shape)


def _parts(frame: Frame, column: str) -> Iterator[tuple[int, Tensor | Iterator[Tensor]]]:
    """Runs of images, and where each starts: [n, c, h, w] from memory, or [c, h, w] one by one from files."""
    with extra("tool"):
        import polars as pl
    cells = column_of(frame, column)
    missing = np.flatnonzero(cells.is_null().to_numpy())
    if len(missing):
        raise MarginsError(
            f"column {column!r}",
            expected="an image in every row",
            received=f"none in {rows_in_words(missing)}",
            fix="drop these rows",
        )
    if cells.dtype == pl.String:
        yield 0, (_from_file(frame.folder, name) for name in cells.to_list())
        return
    if not (isinstance(cells.dtype, pl.Array) and len(cells.dtype.shape) in (2, 3) and _is_bytes(cells)):
        raise MarginsError(
            f"column {column!r}",
            expected="paths of images, or arrays [h, w] or [h, w, c] of uint8",
            received=f"cells of type {cells.dtype}",
            fix="convert them, or give the column another kind",
        )
    shape = cells.dtype.shape
    for start in range(0, len(cells), _PART_ROWS):
        part = np.array(cells[start : start + _PART_ROWS].to_numpy()).reshape(-1, *shape)
        yield start, _channels_first(torch.from_numpy(part), column)


def _is_bytes(cells: pl.Series) -> bool:
    import polars as pl

    inner = cells.dtype
    while isinstance(inner, pl.Array):
        inner = inner.inner
    return inner == pl.UInt8


def _channels_first(images: Tensor, what: str) -> Tensor:
    images = images[..., None] if images.ndim == 3 else images
    if not 1 <= images.shape[-1] <= 4:
        raise MarginsError(
            what,
            expected="images with 1 to 4 channels last, [h, w, c]",
            received=f"arrays of shape {list(images.shape[1:])}",
            fix="move the channels to the last axis",
        )
    return images.permute(0, 3, 1, 2)


def _from_file(folder: Path | None, name: str) -> Tensor:
    from margins.data.images import read_image

    path = (folder or Path()) / name
    return _channels_first(torch.from_numpy(np.array(read_image(path)))[None], str(path))[0]
