"""Batches of whole bags."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from margins.cards import Card, carded
from margins.errors import MarginsError
from margins.labels.bags import bag_sizes


@carded(
    Card(
        name="Bag sampler",
        summary="batches that hold whole bags, for losses of their means",
        paper="Javanmard et al., Learning from Aggregate Responses: Instance Level versus Bag Level Loss "
        "Functions, 2024, arXiv 2401.11081",
        kind="sampler",
        stations=("draw",),
        targets=("bags",),
        entry=96,
        tests=("tests/test_bags.py::test_a_batch_holds_whole_bags_and_an_epoch_every_bag_once",),
        study="label_proportions",
    )
)
class BagSampler(Sampler[list[int]]):
    """Row numbers of batches of whole bags; every bag once a pass, in a new order each time.

    For `torch.utils.data.DataLoader(..., batch_sampler=BagSampler(...))` or a loop of one's own. A recipe has
    `draw: {name: bags}` instead. Bags cut in two would have other means than their targets say.

    Args:
        bag_index: [N] the bag of each row, from 0 without a gap.
        bags_per_batch: at least 1; the last batch may hold fewer.
        generator: draws the order of bags.

    Raises:
        MarginsError: a bag without rows, or fewer than one bag a batch.

    Example:
        >>> bags = torch.tensor([0, 1, 0, 2, 1])
        >>> sampler = BagSampler(bags, bags_per_batch=2, generator=torch.Generator().manual_seed(1))
        >>> batches = list(sampler)
        >>> len(sampler), [sorted(set(bags[batch].tolist())) for batch in batches]
        (2, [[1, 2], [0]])
        >>> local_bags(bags[batches[0]])
        (tensor([0, 0, 1]), tensor([1, 2]))
    """

    def __init__(self, bag_index: Tensor, *, bags_per_batch: int, generator: torch.Generator) -> None:
        if bags_per_batch < 1:
            raise MarginsError("bags_per_batch", expected="at least 1", received=str(bags_per_batch))
        sizes = bag_sizes(bag_index, num_rows=len(bag_index))
        by_bag: list[Tensor] = list(bag_index.argsort(stable=True).split(sizes.tolist()))
        self._by_bag, self._generator = by_bag, generator
        self.bags_per_batch = bags_per_batch

    def __len__(self) -> int:
        """Batches of a pass."""
        return -(-len(self._by_bag) // self.bags_per_batch)

    def __iter__(self) -> Iterator[list[int]]:
        """The rows of each batch, bag after bag."""
        order = torch.randperm(len(self._by_bag), generator=self._generator)
        for bags in order.split(self.bags_per_batch):
            yield torch.cat([self._by_bag[bag] for bag in bags.tolist()]).tolist()


def local_bags(bag_index: Tensor) -> tuple[Tensor, Tensor]:
    """The bags of a batch numbered from 0, and which ones they are among all bags.

    A loss takes the first as its `bag_index`, and as its targets those of all bags at the second.

    Args:
        bag_index: [B] the bag of each row of the batch.

    Example:
        >>> local_bags(torch.tensor([7, 3, 7]))
        (tensor([1, 0, 1]), tensor([3, 7]))
    """
    bags, local = torch.unique(bag_index, return_inverse=True)
    return local, bags
