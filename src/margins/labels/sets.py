"""Sets of items that share one label: the data contract, with padding and masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from margins.cards import Card, carded
from margins.errors import MarginsError, describe
from margins.labels.bags import bag_sizes
from margins.targets.checks import check_labels


@dataclass(frozen=True, eq=False)
class SetBatch:
    """Some sets, padded to the size of the largest.

    Args:
        items: [A, L, ...]; zeros where there is no item.
        mask: [A, L] true for real items, which come first; at least one a set.
        labels: [A] of the sets.
        rows: [A, L] number of each item in the data, -1 where there is none.
    """

    items: Tensor
    mask: Tensor
    labels: Tensor
    rows: Tensor

    def __len__(self) -> int:
        """Number of sets."""
        return len(self.labels)

    def flat(self) -> tuple[Tensor, Tensor]:
        """The real items [B, ...], one after the other, and the set of each [B]: the contract of bags."""
        return self.items[self.mask], torch.nonzero(self.mask)[:, 0]

    def padded(self, states: Tensor) -> Tensor:
        """What an encoder made of the flat items, [B, d], in the places of the items: [A, L, d]."""
        places = states.new_zeros((*self.mask.shape, *states.shape[1:]))
        return places.masked_scatter(_like(self.mask, places), states)

    def to(self, device: torch.device | str) -> SetBatch:
        """The same on another device."""
        return SetBatch(*(t.to(device) for t in (self.items, self.mask, self.labels, self.rows)))


@carded(
    Card(
        name="Sets with a label each",
        summary="labels are known of groups of items (a slide, a basket, an album), not of items",
        paper="Zhang et al., Enhancing Instance-Level Image Classification with Set-Level Labels, 2024, "
        "arXiv 2311.05659",
        kind="data",
        stations=("draw",),
        targets=("bags",),
        entry=100,
        tests=("tests/test_sets.py::test_a_set_of_a_batch_holds_its_items_and_padding_after_them",),
    )
)
class SetDataset:
    """Items, the set of each, and a label a set.

    Sets may have any sizes from one on. `set_index` is what losses of bags take as `bag_index`.

    Args:
        items: [N, ...] what an encoder of items takes.
        set_index: [N] integers from 0; every set has an item.
        set_labels: [A] integers >= 0.

    Raises:
        MarginsError: shapes that do not fit, or a set without items.

    Example:
        >>> sets = torch.tensor([0, 1, 0, 1, 0, 2])
        >>> data = SetDataset(torch.arange(6.0)[:, None], sets, torch.tensor([1, 0, 1]))
        >>> batch = data.batch(torch.tensor([2, 0]))
        >>> batch.items[..., 0]
        tensor([[5., 0., 0.],
                [0., 2., 4.]])
        >>> batch.mask.sum(1), batch.labels
        (tensor([1, 3]), tensor([1, 1]))
    """

    def __init__(self, items: Tensor, set_index: Tensor, set_labels: Tensor) -> None:
        sizes = bag_sizes(set_index, num_rows=len(items))
        check_labels("set_labels", set_labels, dims="[A]")
        if len(set_labels) != len(sizes) or int(set_labels.min()) < 0:
            raise MarginsError(
                "set_labels", expected=f"[A] = [{len(sizes)}] integers >= 0, a label a set",
                received=describe(set_labels),
            )  # fmt: skip
        self.items, self.set_index, self.set_labels = items, set_index.long(), set_labels.long()
        self.sizes = sizes
        self._rows = set_index.argsort(stable=True)
        self._starts = sizes.cumsum(0) - sizes

    def __len__(self) -> int:
        """Number of sets."""
        return len(self.set_labels)

    @property
    def num_labels(self) -> int:
        """One more than the largest label of a set."""
        return int(self.set_labels.max()) + 1

    def batch(self, sets: Tensor) -> SetBatch:
        """These sets, padded.

        Args:
            sets: [A] numbers of sets.
        """
        place = torch.arange(int(self.sizes[sets].max()) if len(sets) else 0)
        mask = place < self.sizes[sets][:, None]
        rows = torch.where(mask, self._starts[sets][:, None] + place, 0)
        rows = torch.where(mask, self._rows[rows], -1)
        items = self.items[rows.clamp(min=0)]
        items = items.masked_fill(~_like(mask, items), 0)
        return SetBatch(items, mask, self.set_labels[sets], rows)

    def batches(self, sets_per_batch: int, *, generator: torch.Generator) -> Iterator[SetBatch]:
        """All sets once, in a new order, so many at a time; the last batch may hold fewer."""
        if sets_per_batch < 1:
            raise MarginsError("sets_per_batch", expected="at least 1", received=str(sets_per_batch))
        for sets in torch.randperm(len(self), generator=generator).split(sets_per_batch):
            yield self.batch(sets)

    def copied_labels(self) -> Tensor:
        """[N] the label of each item's set: the plain way to use labels of sets, and the one to beat."""
        return self.set_labels[self.set_index]


def _like(mask: Tensor, values: Tensor) -> Tensor:
    """The mask [A, L] over values [A, L, ...]."""
    return mask.reshape(*mask.shape, *[1] * (values.ndim - 2)).expand_as(values)
