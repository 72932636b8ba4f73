"""The station `draw`: which rows each step of an epoch sees.

The order of an epoch is a pure function of the seed and the epoch, and a step's rows of the place in it. So
nothing has to be remembered to go on after a restart, and every rank knows the rows of all ranks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from margins.data.roles import TrainRows
from margins.data.settings import Settings
from margins.errors import MarginsError
from margins.training.randomness import generator_of


class Draw(Settings):
    """A way to draw the rows of an epoch."""

    name: Any  # a literal string in each part

    @property
    def changes_prior(self) -> bool:
        """Whether rows of rare classes are seen more often than they are there."""
        return False

    @abstractmethod
    def order(self, rows: TrainRows, generator: torch.Generator) -> Tensor:
        """Numbers of the rows of one epoch, in order; not necessarily each once."""

    def epoch(self, rows: TrainRows, *, batch_size: int, seed: int, epoch: int) -> Sequence[Tensor]:
        """The rows of every step of an epoch, for all ranks together; the last step may be shorter."""
        return self.order(rows, generator_of(seed, "draw", epoch)).split(batch_size)


class Shuffled(Draw):
    """Every row once, in random order.

    Example:
        >>> from margins.encoders import Numbers
        >>> from margins.targets import Targets
        >>> labels = Targets.of_classes(torch.tensor([0, 1, 0, 1, 0]), 2)
        >>> rows = TrainRows(Numbers(torch.zeros(5, 1)), labels)
        >>> steps = Shuffled().epoch(rows, batch_size=2, seed=0, epoch=3)
        >>> [len(step) for step in steps], sorted(torch.cat(steps).tolist())
        ([2, 2, 1], [0, 1, 2, 3, 4])
    """

    name: Literal["shuffled"] = "shuffled"

    def order(self, rows: TrainRows, generator: torch.Generator) -> Tensor:
        return torch.randperm(len(rows), generator=generator)


class ClassBalanced(Draw):
    """As many draws as there are rows, each class as likely; rows of a class in turn, shuffled each turn.

    For long tails; it changes the class prior, so do not also reweigh or adjust for it.
    """

    name: Literal["class_balanced"] = "class_balanced"

    @property
    def changes_prior(self) -> bool:
        return True

    def order(self, rows: TrainRows, generator: torch.Generator) -> Tensor:
        labels = rows.class_ids()
        present = labels.unique()
        share = -(-len(rows) // len(present))
        drawn = [_in_turns(torch.nonzero(labels == c).squeeze(1), share, generator) for c in present.tolist()]
        # Class after class would make batches of one class: each row of this table is a round of all classes.
        rounds = torch.stack(drawn, dim=1)
        within = torch.rand(rounds.shape, generator=generator).argsort(1)
        return rounds.gather(1, within).reshape(-1)[: len(rows)]


class SeveralPerClass(Draw):
    """Batches of `items` rows of each class they hold, for losses that compare rows of a batch.

    Every row once an epoch, but for the rows left over when a class has no multiple of `items`, which are
    drawn first the next time as likely as all others.

    Args:
        items: rows of a class that stand together, at least 2. The batch size should be a multiple of it.
    """

    name: Literal["several_per_class"] = "several_per_class"
    items: Annotated[int, Field(ge=2)] = 4

    def order(self, rows: TrainRows, generator: torch.Generator) -> Tensor:
        labels = rows.class_ids()
        shuffled = torch.randperm(len(rows), generator=generator)
        by_class = shuffled[labels[shuffled].argsort(stable=True)]
        counts = labels.bincount()
        starts = counts.cumsum(0) - counts
        place = torch.arange(len(rows)) - starts[labels[by_class]]
        whole = place < (counts // self.items * self.items)[labels[by_class]]
        groups = by_class[whole].reshape(-1, self.items)
        if not len(groups):
            raise MarginsError(
                "draw", expected=f"a class with at least {self.items} training rows", received="none",
                fix="lower draw.items",
            )  # fmt: skip
        return groups[torch.randperm(len(groups), generator=generator)].reshape(-1)


class Bags(Draw):
    """Steps of whole bags: groups of rows of one size, made once, of which only the mean target is used.

    For the loss `aggregated`, and to learn what it would cost to know answers in aggregate only: the select
    rows and the report rows keep targets of their own. Every bag once an epoch; the rows left over where the
    size does not divide them are left out. A step has as many bags as fit into the batch size, at least one.

    Args:
        size: rows a bag.
    """

    name: Literal["bags"] = "bags"
    size: Annotated[int, Field(ge=1)] = 8

    def order(self, rows: TrainRows, generator: torch.Generator) -> Tensor:
        return self._members(rows, generator).reshape(-1)

    def epoch(self, rows: TrainRows, *, batch_size: int, seed: int, epoch: int) -> Sequence[Tensor]:
        # Other bags in another epoch would give away, mean by mean, what each row's target is.
        bags = self._members(rows, generator_of(seed, "bags"))
        turn = torch.randperm(len(bags), generator=generator_of(seed, "draw", epoch))
        return [step.reshape(-1) for step in bags[turn].split(max(batch_size // self.size, 1))]

    def _members(self, rows: TrainRows, generator: torch.Generator) -> Tensor:
        """[A, size] the rows of each bag."""
        num_bags = len(rows) // self.size
        if not num_bags:
            raise MarginsError(
                "draw.size", expected=f"at most the {len(rows)} training rows", received=str(self.size)
            )
        if rows.targets.row_weight is not None:
            raise MarginsError(
                "weight", expected="rows that all weigh the same, with draw bags", received="row weights",
                fix="take the weight column out, or use another draw",
            )  # fmt: skip
        order = torch.randperm(len(rows), generator=generator)
        return order[: num_bags * self.size].reshape(num_bags, self.size)


AnyDraw = Annotated[Shuffled | ClassBalanced | SeveralPerClass | Bags, Field(discriminator="name")]


def share_of(step: Tensor, *, part: int, parts: int) -> Tensor:
    """The rows of one of several equal parts of a step; sizes differ by one at most, some may be empty.

    Example:
        >>> [share_of(torch.arange(5), part=p, parts=3).tolist() for p in range(3)]
        [[0, 1], [2, 3], [4]]
    """
    return step.tensor_split(parts)[part]


def _in_turns(members: Tensor, num: int, generator: torch.Generator) -> Tensor:
    turns = -(-num // len(members))
    return torch.cat([members[torch.randperm(len(members), generator=generator)] for _ in range(turns)])[:num]
