"""Small seeded problems: scores and targets of every kind, with the arrays that a reference reads."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from margins.targets import Targets

KINDS = ("classes", "label sets", "scores", "matches")


@dataclass(frozen=True)
class Problem:
    """Scores, targets, and what they mean entry by entry in float64."""

    scores: Tensor
    targets: Targets
    grades: np.ndarray
    known: np.ndarray
    weight: np.ndarray
    margin: np.ndarray
    side: dict[str, Tensor]
    ids: Tensor

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """What a row-wise reference takes."""
        return self.scores.detach().numpy(), self.grades, self.known, self.weight, self.margin

    def take(self, rows: Tensor) -> Problem:
        """Some rows; side blocks are cut with them."""
        index = rows.numpy()
        return replace(
            self,
            scores=self.scores[rows],
            targets=self.targets.take(rows),
            grades=self.grades[index],
            known=self.known[index],
            weight=self.weight[index],
            margin=self.margin[index],
            side={name: block[rows] for name, block in self.side.items()},
            ids=self.ids[rows],
        )


def make_problem(
    kind: str,
    seed: int = 0,
    *,
    num_anchors: int = 7,
    num_candidates: int = 6,
    layers: bool = True,
    entry_weights: bool = True,
    side_names: tuple[str, ...] = (),
    spread: float = 2.0,
) -> Problem:
    """A problem of one kind of targets; with `layers`, unknown entries, entry weights and margins on it."""
    rng = torch.Generator().manual_seed(seed)
    shape = (num_anchors, num_candidates)
    scores = spread * torch.randn(shape, generator=rng, dtype=torch.float64)
    targets, grades, known = _plain(kind, shape, rng)
    weight, margin = np.ones(shape), np.zeros(shape)
    if layers:
        unknown = torch.rand(shape, generator=rng) < 0.15
        unknown[-1] = True
        unknown[0] = False
        targets, known = targets.ignore(entries=unknown), known & ~unknown.numpy()
        if entry_weights:
            entry_weight = 0.5 + torch.rand(shape, generator=rng, dtype=torch.float64)
            targets, weight = targets.weigh(entries=entry_weight), entry_weight.numpy()
        on_positives = torch.rand(num_candidates, generator=rng, dtype=torch.float64)
        everywhere = torch.randn(num_candidates, generator=rng, dtype=torch.float64)
        targets = targets.margin(candidates=on_positives, on="positives").margin(candidates=everywhere)
        margin = everywhere.numpy() + on_positives.numpy() * (grades > 0)
    side = {name: torch.randn(shape, generator=rng, dtype=torch.float64) for name in side_names}
    return Problem(scores, targets, grades, known, weight, margin, side, torch.arange(num_anchors))


def _plain(kind: str, shape: tuple[int, int], rng: torch.Generator) -> tuple[Targets, np.ndarray, np.ndarray]:
    num_anchors, num_candidates = shape
    all_known = np.ones(shape, dtype=bool)
    if kind == "classes":
        labels = torch.randint(0, num_candidates, (num_anchors,), generator=rng)
        return Targets.of_classes(labels, num_candidates), np.eye(num_candidates)[labels.numpy()], all_known
    if kind == "label sets":
        hot = torch.rand(shape, generator=rng) < 0.4
        hot[1], hot[2] = False, True
        hot[0, :2] = torch.tensor([True, False])
        sets = [row.nonzero()[:, 0].tolist() for row in hot]
        return Targets.of_label_sets(sets, num_candidates), hot.double().numpy(), all_known
    if kind == "scores":
        grades = torch.rand(shape, generator=rng, dtype=torch.float64)
        grades = torch.where(torch.rand(shape, generator=rng) < 0.5, grades, 0.0)
        grades[0, 0] = 0.7
        return Targets.of_scores(grades), grades.numpy(), all_known
    anchors = torch.randint(0, 3, (num_anchors,), generator=rng)
    candidates = torch.cat([anchors, torch.randint(0, 3, (num_candidates,), generator=rng)])[:num_candidates]
    itself = torch.arange(num_anchors).where(torch.arange(num_anchors) < num_candidates, -1)
    targets = Targets.of_matches(anchors, candidates, same_items=itself)
    same = (anchors[:, None] == candidates[None]).double().numpy()
    known = itself.numpy()[:, None] != np.arange(num_candidates)
    return targets, same, known
