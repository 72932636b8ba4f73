"""A folder of images, one sub-folder for each label."""

from __future__ import annotations

from pathlib import Path

from margins.data.extras import extra
from margins.data.readers.raw import Raw
from margins.data.split_words import ROLE_OF
from margins.errors import MarginsError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def read_image_folder(folder: Path) -> Raw:
    """Columns "image" (paths relative to the folder, sorted) and "label" (the sub-folder).

    When every sub-folder is named as a role (train, val, test), these become the column "split" and the
    folders below them the labels; a note says so.

    Raises:
        MarginsError: no image in it, or images both beside and inside sub-folders.
    """
    with extra("tool"):
        import polars as pl
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and not _is_hidden(p))
    images = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise MarginsError(
            str(folder),
            expected=f"images in sub-folders ({', '.join(IMAGE_SUFFIXES)})",
            received=f"{len(files)} other files",
            fix="name a file, or a folder with a sub-folder of images for each label",
        )
    others = len(files) - len(images)
    notes = [f"{others} files that are no images were left out."] if others else []
    columns = {"image": [p.as_posix() for p in images]}
    parents = [p.parent.parts for p in images]
    if all(len(parts) > 1 and parts[0].lower() in ROLE_OF for parts in parents):
        columns["split"] = [parts[0] for parts in parents]
        parents = [parts[1:] for parts in parents]
        notes.append("The first level of folders is read as the column 'split', the next as 'label'.")
    if any(parents):
        _check_all_below(folder, images, parents)
        columns["label"] = ["/".join(parts) for parts in parents]
    return Raw(pl.DataFrame(columns), folder=folder, notes=notes)


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _check_all_below(folder: Path, images: list[Path], parents: list[tuple[str, ...]]) -> None:
    loose = [p.as_posix() for p, parts in zip(images, parents, strict=True) if not parts]
    if loose:
        raise MarginsError(
            str(folder),
            expected="every image in the sub-folder of its label",
            received=f"{len(loose)} outside, first {loose[0]}",
            fix="move them into sub-folders",
        )
