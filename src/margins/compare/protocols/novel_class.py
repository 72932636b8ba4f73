"""How well an embedding tells classes apart that were not there when it was trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from margins.cards import Card, carded
from margins.errors import MarginsError, describe
from margins.heads import PrototypeHead
from margins.targets.checks import check_labels

Rows = tuple[Tensor, Tensor]
"""Inputs [N, ...] and class ids [N]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedEmbedding:
    """What was trained on the seen classes.

    Args:
        embed: inputs [N, ...] to embeddings [N, d].
        class_vectors: [K, d] weights of the seen classes, in the order of the labels that it was trained on,
            if it has such.
    """

    embed: Callable[[Tensor], Tensor]
    class_vectors: Tensor | None = None


Training = Callable[[Tensor, Tensor, int], TrainedEmbedding]
"""Inputs [N, ...] and labels [N] from 0 of the seen classes, and a seed, to what was trained on them."""


@dataclass(frozen=True, kw_only=True)
class JointScore:
    """Accuracy where a row may be of any class.

    Args:
        overall: of all test rows.
        seen: of those of seen classes.
        novel: of those of novel ones.
    """

    overall: float
    seen: float
    novel: float


@dataclass(frozen=True, kw_only=True)
class NovelClassScore:
    """What a division into seen and novel classes gave.

    Args:
        split: its number, from 0.
        seen: classes that were trained on.
        shots: support rows of each novel class; None for all training rows.
        disjoint: accuracy on test rows of novel classes, among novel classes.
        joint: among all classes, the seen ones by prototypes of all their training rows.
        joint_by_weights: the same, the seen ones by their trained weights; None without such.
    """

    split: int
    seen: tuple[int, ...]
    shots: int | None
    disjoint: float
    joint: JointScore
    joint_by_weights: JointScore | None


@carded(
    Card(
        name="Novel-class protocol",
        summary="embeddings that must serve classes to come: accuracy on some that training did not see",
        paper="Pereira et al., Hyperspherical Embedding for Novel Class Classification, 2021, "
        "arXiv 2102.03243",
        kind="protocol",
        stations=("protocol",),
        targets=("classes", "matches"),
        entry=33,
        tests=(
            "tests/test_prototypes.py::test_the_protocol_trains_on_seen_classes_alone_and_is_judged_on_test_rows",
            "tests/test_prototypes.py::test_a_perfect_embedding_gets_everything_right_in_both_protocols",
        ),
        study="cosine_novel_classes",
    )
)
def novel_class(
    training: Training,
    train: Rows,
    test: Rows,
    *,
    num_seen: int,
    shots: Sequence[int | None] = (1, 5, 20, None),
    num_splits: int = 5,
    seed: int,
) -> list[NovelClassScore]:
    """Trains on some classes and classifies rows of the others by cosine to prototypes of a few rows of each.

    Use it to choose a loss or a head for embeddings that are to serve classes to come; a loss that is best on
    the classes of training need not be best here. Give it the inputs themselves as an embedding too: on easy
    inputs no training may be best. Do not use it for the accuracy on known classes alone.

    Both protocols come from the same training: *disjoint*, novel rows among novel classes, and *joint*, all
    rows among all classes, where seen classes stand for themselves by prototypes or by their weights. The
    joint one is much harder for novel rows. Of one seed, all methods get the same divisions and support rows.

    Args:
        training: trains an embedding on rows of seen classes.
        train: inputs [N, ...] and class ids [N], to train on and to take support rows from.
        test: inputs [n, ...] and class ids [n], of the same classes.
        num_seen: classes that are trained on; at least one is left.
        shots: support rows of each novel class; None for all training rows of it.
        num_splits: divisions of the classes, drawn at random.
        seed: of the divisions, the support rows and the trainings.

    Returns:
        one a split and number of shots.

    Raises:
        MarginsError: other shapes, too few classes, or fewer rows of a class than shots.

    References:
        Pereira et al. 2021, arXiv 2102.03243.

    Example:
        >>> x, y = torch.eye(4).repeat(3, 1), torch.arange(4).repeat(3)
        >>> def plain(inputs, labels, seed):
        ...     return TrainedEmbedding(embed=lambda new: new)
        >>> found = novel_class(plain, (x, y), (x, y), num_seen=2, shots=(1,), num_splits=1, seed=0)
        >>> found[0].disjoint, found[0].joint.overall
        (1.0, 1.0)
    """
    _check(train, test, num_seen, shots, num_splits)
    draws, classes = torch.Generator().manual_seed(seed), train[1].unique()
    found = list[NovelClassScore]()
    for split in range(num_splits):
        seen = classes[torch.randperm(len(classes), generator=draws)[:num_seen]].sort().values
        own_seed = int(torch.randint(2**31 - 1, (), generator=draws))
        is_seen = torch.isin(train[1], seen)
        labels = torch.searchsorted(seen, train[1][is_seen])
        trained = training(train[0][is_seen], labels, own_seed)
        with torch.no_grad():
            embedded = trained.embed(train[0]), trained.embed(test[0])
        found += _scores(split, seen, trained, (embedded[0], train[1]), (embedded[1], test[1]), shots, draws)
    return found


def _scores(
    split: int,
    seen: Tensor,
    trained: TrainedEmbedding,
    train: Rows,
    test: Rows,
    shots: Sequence[int | None],
    draws: torch.Generator,
) -> Iterator[NovelClassScore]:
    is_seen, tests_seen = torch.isin(train[1], seen), torch.isin(test[1], seen)
    of_seen = PrototypeHead.from_support(train[0][is_seen], train[1][is_seen])
    vectors = trained.class_vectors
    by_weights = None if vectors is None else PrototypeHead(vectors, seen)
    for num in shots:
        support = _support(train[1], ~is_seen, num, draws)
        novel = PrototypeHead.from_support(train[0][support], train[1][support])
        right = novel.predict(test[0][~tests_seen]) == test[1][~tests_seen]
        yield NovelClassScore(
            split=split, seen=tuple(seen.tolist()), shots=num, disjoint=_share(right),
            joint=_joint(of_seen.joined(novel), test, tests_seen),
            joint_by_weights=None if by_weights is None else _joint(
                by_weights.joined(novel), test, tests_seen
            ),
        )  # fmt: skip


def _support(labels: Tensor, is_novel: Tensor, num: int | None, draws: torch.Generator) -> Tensor:
    """The places of `num` rows of each novel class, or of all."""
    chosen = list[Tensor]()
    for novel in labels[is_novel].unique():
        places = (labels == novel).nonzero()[:, 0]
        order = torch.randperm(len(places), generator=draws)
        chosen.append(places[order[:num]])
    return torch.cat(chosen)


def _joint(head: PrototypeHead, test: Rows, tests_seen: Tensor) -> JointScore:
    right = head.predict(test[0]) == test[1]
    return JointScore(overall=_share(right), seen=_share(right[tests_seen]), novel=_share(right[~tests_seen]))


def _share(right: Tensor) -> float:
    return float(right.double().mean())


def _check(train: Rows, test: Rows, num_seen: int, shots: Sequence[int | None], num_splits: int) -> None:
    for name, (inputs, labels) in (("train", train), ("test", test)):
        check_labels(f"{name} labels", labels)
        if len(inputs) != len(labels):
            raise MarginsError(name, expected="as many inputs as class ids", received=describe(inputs))
    classes, counts = train[1].unique(return_counts=True)
    if not torch.equal(classes, test[1].unique()):
        raise MarginsError(
            "test labels", expected="the classes of the training rows, all of them",
            received=str(test[1].unique().tolist()[:20]),
        )  # fmt: skip
    if not 1 <= num_seen < len(classes):
        raise MarginsError("num_seen", expected=f"in [1, {len(classes) - 1}]", received=str(num_seen))
    if num_splits < 1:
        raise MarginsError("num_splits", expected="at least 1", received=str(num_splits))
    for num in shots:
        if num is not None and not 1 <= num <= int(counts.min()):
            raise MarginsError(
                "shots", expected=f"in [1, {int(counts.min())}], the rows of the rarest class, or None",
                received=str(num),
            )  # fmt: skip
