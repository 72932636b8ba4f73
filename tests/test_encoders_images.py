"""Images: sizes, colours, files, normalisation, random moves, and networks whose rows are independent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from margins.data.frame import Frame
from margins.encoders import Images, SmallResNet, SmallResNetSettings, SmallViT
from margins.encoders.images import ImagePreparation, in_channels, moved, resized
from margins.errors import MarginsError
from margins.heads import LinearHead

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(0, 256, shape, dtype=np.uint8)


def in_memory(images: np.ndarray) -> Frame:
    return Frame(table=pl.DataFrame({"image": images}), source="made up", fingerprint="0")


def in_files(folder: Path, images: list[np.ndarray]) -> Frame:
    for k, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{k}.png")
    names = [f"{k}.png" for k in range(len(images))]
    return Frame(table=pl.DataFrame({"image": names}), source="made up", fingerprint="0", folder=folder)


def prepared(frame: Frame, settings: SmallResNetSettings | None = None) -> ImagePreparation:
    return (settings or SmallResNetSettings()).prepare(frame, {"image": "image"})


def test_images_of_files_and_of_memory_are_the_same_pixels(tmp_path: Path):
    colour = pixels(3, 8, 6, 3)
    memory, files = in_memory(colour), in_files(tmp_path, list(colour))
    assert prepared(memory) == prepared(files)
    stored = prepared(memory)(memory).pixels
    assert torch.equal(prepared(files)(files).pixels, stored)
    assert torch.equal(stored, torch.from_numpy(colour).permute(0, 3, 1, 2))


def test_the_size_is_the_most_common_one_of_training_and_stays(tmp_path: Path):
    images = [pixels(8, 6), pixels(9, 9), pixels(8, 6)]
    frame = in_files(tmp_path, images)
    preparation = prepared(frame)
    assert (preparation.height, preparation.width, preparation.channels) == (8, 6, 1)
    rows = preparation(frame).pixels
    assert rows.shape == (3, 1, 8, 6)
    assert torch.equal(rows[2, 0], torch.from_numpy(images[2]))
    later = in_memory(pixels(2, 30, 31))
    assert preparation(later).pixels.shape == (2, 1, 8, 6)


def test_a_large_size_is_scaled_down_and_an_asked_for_size_is_taken():
    frame = in_memory(pixels(2, 448, 224))
    small = prepared(frame)
    assert (small.height, small.width) == (224, 112)
    asked = prepared(frame, SmallResNetSettings(size=(10, 300)))
    assert asked(frame).pixels.shape == (2, 1, 10, 300)


def test_equally_common_sizes_give_the_smaller_whatever_the_order(tmp_path: Path):
    images = [pixels(8, 6), pixels(5, 7)]
    for k, order in enumerate((images, images[::-1])):
        (tmp_path / str(k)).mkdir()
        assert prepared(in_files(tmp_path / str(k), order)).height == 5


def test_grey_and_colour_turn_into_each_other_and_transparency_is_left_out():
    colour, grey = torch.from_numpy(pixels(2, 3, 4, 4)), torch.from_numpy(pixels(2, 1, 4, 4))
    assert torch.equal(in_channels(grey, 3), torch.cat([grey] * 3, 1))
    expected = 0.299 * colour[:, 0].double() + 0.587 * colour[:, 1] + 0.114 * colour[:, 2]
    assert (in_channels(colour, 1)[:, 0].double() - expected).abs().max() <= 0.51
    assert torch.equal(in_channels(torch.cat([colour, grey], 1), 3), colour)
    assert torch.equal(in_channels(torch.cat([grey, grey], 1), 1), grey)


def test_resizing_keeps_flat_images_and_the_same_size():
    image = torch.from_numpy(pixels(1, 1, 6, 6))
    assert torch.equal(resized(image, (6, 6)), image)
    assert (resized(torch.full((1, 3, 9, 9), 77, dtype=torch.uint8), (4, 13)) == 77).all()
    halves = torch.tensor([[[[0, 0, 200, 200]]]], dtype=torch.uint8)
    assert resized(halves, (1, 2))[0, 0, 0].tolist() == pytest.approx([20, 180], abs=25)


def test_pixels_are_normalised_by_mean_and_deviation_of_each_channel():
    rows = Images(torch.from_numpy(pixels(50, 3, 9, 8)))
    network = SmallResNet(size=(9, 8), colours=3, channels=8, width=4, generator=seeded())
    network.fit(rows)
    values = rows.pixels.double()
    assert torch.allclose(network.mean.double(), values.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(network.deviation.double(), values.std((0, 2, 3), correction=0), atol=1e-4)
    flat = Images(torch.full((3, 3, 9, 8), 9, dtype=torch.uint8))
    network.fit(flat)
    assert network.deviation.tolist() == [1.0, 1.0, 1.0]
    assert torch.isfinite(network(flat)).all()


def test_moves_are_whole_pixels_within_reach_and_repeat_the_border():
    images = torch.from_numpy(pixels(200, 2, 5, 7))
    shifted = moved(images, 2, generator=seeded())
    padded = nn.functional.pad(images.float(), (2, 2, 2, 2), mode="replicate").to(torch.uint8)
    seen = set()
    for k in range(200):
        fits = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.equal(padded[k, :, y : y + 5, x : x + 7], shifted[k])
        ]
        assert len(fits) == 1
        seen.add(fits[0])
    assert len(seen) == 25


@pytest.mark.parametrize("kind", [SmallResNet, SmallViT])
def test_images_are_moved_in_training_alone(kind: type[SmallResNet] | type[SmallViT]):
    network = kind(size=(12, 12), width=8, dropout=0.0, shift=2, generator=seeded())
    rows = Images(torch.from_numpy(pixels(4, 1, 12, 12)))
    assert not torch.equal(network(rows), network(rows))
    network.eval()
    assert torch.equal(network(rows), network(rows))


@pytest.mark.parametrize("kind", [SmallResNet, SmallViT])
@torch.no_grad()
def test_rows_are_independent_in_training_too(kind: type[SmallResNet] | type[SmallViT]):
    network = kind(size=(12, 12), width=8, dropout=0.0, generator=seeded())
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=seeded(2)))
    rows = Images(torch.from_numpy(pixels(4, 1, 12, 12)))
    together = network.train()(rows)
    alone = torch.cat([network(rows.take(torch.tensor([k]))) for k in range(4)])
    assert torch.allclose(together, alone, atol=1e-5)
    assert together.std(0).min() > 0


@pytest.mark.parametrize("size", [(1, 1), (5, 30), (28, 28), (33, 64), (97, 40)])
@pytest.mark.parametrize("kind", [SmallResNet, SmallViT])
@torch.no_grad()
def test_every_size_of_image_has_a_network(kind: type[SmallResNet] | type[SmallViT], size: tuple[int, int]):
    network = kind(size=size, width=8, generator=seeded()).eval()
    rows = Images(torch.from_numpy(pixels(2, 1, *size)))
    assert network(rows).shape == (2, 8)
    assert not torch.equal(network(rows)[0], network(rows)[1])


@pytest.mark.parametrize("kind", [SmallResNet, SmallViT])
def test_a_network_learns_where_a_spot_is(kind: type[SmallResNet] | type[SmallViT]):
    generator = seeded(1)
    labels = torch.randint(0, 2, (96,), generator=generator)
    images = torch.randint(0, 120, (96, 1, 12, 12), generator=generator, dtype=torch.uint8)
    for k, label in enumerate(labels.tolist()):
        images[k, 0, 4:7, 1 + 7 * label : 4 + 7 * label] = 255
    network = kind(size=(12, 12), width=16, dropout=0.0, generator=generator)
    head = LinearHead(16, 2, generator=generator)
    network.fit(Images(images))
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr=3e-3)
    rows, held = Images(images[:64]), Images(images[64:])
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(network(rows)), labels[:64]).backward()
        optimizer.step()
    network.eval()
    assert (head(network(held)).argmax(1) == labels[64:]).float().mean() > 0.9


def test_images_that_cannot_be_used_are_refused_with_what_and_where(tmp_path: Path):
    with pytest.raises(MarginsError, match=r"column 'image'.*none in row 2"):
        prepared(Frame(table=pl.DataFrame({"image": ["a.png", None]}), source="x", fingerprint="0"))
    with pytest.raises(MarginsError, match=r"1 to 4 channels last.*\[3, 8, 6\]"):
        prepared(in_memory(pixels(2, 3, 8, 6)))
    with pytest.raises(MarginsError, match=r"column 'image'.*Float32"):
        prepared(in_memory(pixels(2, 8, 6).astype(np.float32)))
    with pytest.raises(MarginsError, match="at least one image"):
        prepared(in_memory(pixels(2, 8, 6)).take(torch.zeros(0, dtype=torch.int64)))
    frame = in_files(tmp_path, [pixels(8, 6)])
    (tmp_path / "0.png").write_bytes(b"not an image")
    with pytest.raises(MarginsError, match=r"0\.png"):
        prepared(frame)
