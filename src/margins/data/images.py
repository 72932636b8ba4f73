"""One image file as an array."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from margins.data.extras import extra
from margins.data.stored import stored_bytes
from margins.errors import MarginsError

if TYPE_CHECKING:
    from PIL import Image

_SEVERAL_VALUES = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")


def read_image(
    path: str | Path, size: tuple[int, int] | None = None, max_pixels: int = 50_000_000
) -> npt.NDArray[np.uint8]:
    """Reads an image, its turn by the camera undone: one channel for grey, three for colours.

    Transparency is laid on white. Of an animation the first picture is read.

    Args:
        path: the file.
        size: (height, width) to scale to; None keeps its own.
        max_pixels: an image whose header tells more is refused before it is decoded.

    Returns:
        [height, width, channels] uint8.

    Raises:
        MarginsError: the file is missing, no image, cut short, or has too many pixels.
    """
    with extra("tool"):
        from PIL import Image, UnidentifiedImageError
    path = Path(path)
    if path.is_dir() or not path.exists():
        stored_bytes(path, expected="an image")
    try:
        with warnings.catch_warnings():
            # Its own guard against huge images warns late and globally; the header is looked at below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                _check_size(path, image, max_pixels)
                return _as_array(image, size)
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error), max_pixels) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, MarginsError):
            raise
        reason = "no image that can be told" if isinstance(error, UnidentifiedImageError) else str(error)
        raise MarginsError(
            str(path),
            expected="a whole image (png, jpeg, bmp, gif, webp, tiff)",
            received=reason,
            fix="save it again or drop its row",
        ) from error


def _check_size(path: Path, image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise _too_large(path, f"{image.width} x {image.height} pixels", max_pixels)


def _too_large(path: Path, received: str, max_pixels: int) -> MarginsError:
    return MarginsError(
        str(path),
        expected=f"an image of at most {max_pixels} pixels",
        received=received,
        fix="scale it down, or raise max_pixels if it is meant",
    )


def _as_array(image: Image.Image, size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    from PIL import Image, ImageOps

    turned = ImageOps.exif_transpose(image)
    if "A" in turned.getbands() or "transparency" in turned.info:
        clear = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    if turned.mode.startswith("I;16"):
        # Sixteen bits of grey: the upper eight.
        turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
    plain = turned.convert("RGB" if turned.mode in _SEVERAL_VALUES else "L")
    if size is not None:
        plain = plain.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.array(plain, dtype=np.uint8)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]
