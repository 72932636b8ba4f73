"""Targets of every storage under every layer, and a slow reading of them that the laws compare with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from margins.targets import Targets
from margins.taxonomy import Taxonomy

B, C = 5, 7
LABELS = torch.tensor([2, 0, 6, 2, 5])
SHARES = torch.tensor([0.3, 1.0, 0.0, 0.5, 0.75])

Build = Callable[[], Targets]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Numbers in [0, 1) that are the same at every call."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def classes() -> Targets:
    return Targets.of_classes(LABELS, C)


def classes_ignoring() -> Targets:
    return Targets.of_classes(torch.tensor([-100, 0, 6, -100, 5]), C)


def paired() -> Targets:
    return Targets.of_pairs(B, extra=C - B)


def paired_with_ids() -> Targets:
    return Targets.of_pairs(B, extra=C - B, item_ids=torch.tensor([4, 1, 4, 3, 2, 1, 9]))


def label_sets() -> Targets:
    return Targets.of_label_sets([[6, 0], [], [3], [1, 2, 4], [0]], C)


def dense() -> Targets:
    grades = drawn(B, C, seed=1)
    return Targets.of_scores(torch.where(grades > 0.5, grades, 0.0))


def values() -> Targets:
    return Targets.of_values(drawn(B, C, seed=2) - 0.5)


def matches() -> Targets:
    candidates = torch.tensor([2, 0, 6, 2, 5, 2, 1])
    return Targets.of_matches(LABELS, candidates, same_items=torch.tensor([0, 1, -1, 6, 4]))


def matches_in_batch() -> Targets:
    return Targets.of_matches(LABELS)


def animals() -> Taxonomy:
    edges = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("c", "e"), ("f", "g")]
    return Taxonomy.from_edges(edges, nodes=[*"abcdefg"])


def taxonomy() -> Targets:
    return Targets.of_taxonomy(LABELS, animals(), decay=0.5, radius=2)


def mixed_sparse() -> Targets:
    return label_sets().mix(classes(), SHARES)


def mixed_dense() -> Targets:
    return paired_with_ids().mix(dense().weigh(candidates=drawn(C, seed=3)), SHARES)


def mixed_layered() -> Targets:
    first = classes_ignoring().margin(rows=drawn(B, seed=4), on="positives").smooth(0.1)
    second = matches().weigh(entries=drawn(B, C, seed=5)).weigh(rows=drawn(B, seed=6) + 0.1)
    return first.mix(second, SHARES)


def appended_sparse() -> Targets:
    return classes().append(Targets.of_label_sets([[1], [], [0, 2], [], [1]], 3))


def appended_layered() -> Targets:
    first = classes_ignoring().weigh(candidates=drawn(C, seed=7)).margin(rows=drawn(B, seed=8))
    second = dense().ignore(entries=drawn(B, C, seed=9) > 0.7).weigh(candidates=drawn(C, seed=20) + 0.1)
    return first.append(second).append(matches_in_batch())


def appended_mixed() -> Targets:
    return mixed_sparse().append(mixed_dense())


STORAGES: dict[str, Build] = {
    build.__name__: build
    for build in (
        *(classes, classes_ignoring, paired, paired_with_ids, label_sets, dense, values),
        *(matches, matches_in_batch, taxonomy, mixed_sparse, mixed_dense, mixed_layered),
        *(appended_sparse, appended_layered, appended_mixed),
    )
}


def some_zero(*shape: int, seed: int) -> Tensor:
    """Weights, about a third of them 0."""
    weights = drawn(*shape, seed=seed)
    return torch.where(weights > 0.35, weights, 0.0)


LAYERS: dict[str, Callable[[Targets], Targets]] = {
    "plain": lambda t: t,
    "row_weights": lambda t: t.weigh(rows=some_zero(len(t), seed=10)),
    "ignored_rows": lambda t: t.ignore(rows=drawn(len(t), seed=11) > 0.5),
    "ignored_candidates": lambda t: t.ignore(candidates=drawn(t.num_candidates, seed=12) > 0.4),
    "ignored_entries": lambda t: t.ignore(entries=drawn(*t.shape, seed=13) > 0.6),
    "entry_weights": lambda t: t.weigh(entries=some_zero(*t.shape, seed=14)),
    "candidate_weights": lambda t: t.weigh(candidates=some_zero(t.num_candidates, seed=15)),
    "margin_on_all": lambda t: t.margin(candidates=drawn(t.num_candidates, seed=16)),
    "margin_on_positives": lambda t: t.margin(rows=drawn(len(t), seed=17), on="positives"),
    "margin_on_negatives": lambda t: t.margin(entries=drawn(*t.shape, seed=18), on="negatives"),
    "smoothed": lambda t: t.smooth(0.2),
}
LAYERS["every_layer"] = lambda t: (
    LAYERS["ignored_entries"](LAYERS["entry_weights"](LAYERS["row_weights"](t)))
    .margin(rows=drawn(len(t), seed=19))
    .margin(candidates=drawn(t.num_candidates, seed=16), on="positives")
    .margin(entries=drawn(*t.shape, seed=18), on="negatives")
    .smooth(0.2)
)
NEED_POSITIVES = {"margin_on_positives", "margin_on_negatives", "smoothed", "every_layer"}


def layers_of(storage: str) -> list[str]:
    """The layers that the storage can carry."""
    return [name for name in LAYERS if not (storage == "values" and name in NEED_POSITIVES)]


@functools.cache
def made(storage: str, layer: str = "plain") -> Targets:
    """One of the cases; targets are immutable, so each is made once."""
    return LAYERS[layer](STORAGES[storage]())


def all_made(storage: str) -> Iterator[Targets]:
    """The storage under each of its layers."""
    return (made(storage, layer) for layer in layers_of(storage))


class Written(NamedTuple):
    """Targets written out entry by entry, None replaced by what it stands for."""

    grades: Tensor
    known: Tensor
    weight: Tensor
    margin: Tensor
    rows_known: Tensor
    row_weight: Tensor


def filled(tensor: Tensor | None, shape: tuple[int, ...], neutral: float | bool) -> Tensor:
    """The tensor at full size."""
    return (torch.tensor(neutral) if tensor is None else tensor).expand(shape)


def written(targets: Targets, start: int = 0, stop: int | None = None) -> Written:
    """Everything that targets say about columns start to stop."""
    stop = targets.num_candidates if stop is None else stop
    block = targets.block(start, stop)
    shape = (targets.num_anchors, stop - start)
    return Written(
        filled(block.grades, shape, 0.0),
        filled(block.known, shape, True),
        filled(block.weight, shape, 1.0),
        filled(block.margin, shape, 0.0),
        filled(targets.known_rows(), shape[:1], True),
        filled(targets.row_weight, shape[:1], 1.0),
    )


def assert_same(first: Targets, second: Targets) -> None:
    """Both say the same about every entry and row, to the last bit."""
    assert first.shape == second.shape
    for name, a, b in zip(Written._fields, written(first), written(second), strict=True):
        assert torch.equal(a, b), f"{name} differs:\n{a}\n{b}"


def tensors_of(targets: Targets) -> list[Tensor]:
    """Every tensor inside."""
    found: list[Tensor] = []

    def look(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    targets.map_tensors(look)
    return found


def digest(targets: Targets) -> list[list[list[float]]]:
    """What targets say, as plain lists, to be compared across processes."""
    return [torch.atleast_2d(part.double()).tolist() for part in written(targets)]


def digests(batch: dict[str, Targets]) -> dict[str, list[list[list[float]]]]:
    """The digest of each; run in a worker process."""
    return {name: digest(targets) for name, targets in batch.items()}
