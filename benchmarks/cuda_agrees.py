"""Every statistics loss on CUDA against the same on the CPU in float64: values and gradients.

Not a benchmark, but what must hold before one on CUDA means anything. Says so and ends well where there is
no CUDA device. The cases are those of the tests.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness.cases import CASES, Case
from harness.laws import problem_of
from margins.engine import Blockwise, Cosine, Dense, Dot, Euclidean, Evaluator, ScoreRule, UnitEuclidean
from margins.engine.sources import factored
from margins.losses import BinaryCrossEntropy, CrossEntropy, InfoNCE, MannWhitney, SemiHardTriplet
from margins.losses.forms import StatisticsLoss
from margins.targets import Targets

RULES: tuple[ScoreRule, ...] = (Dot(), Cosine(), Euclidean(), UnitEuclidean())
TOLERANCE = 2e-4
HALF_TOLERANCE = 6e-3  # of gradients that are rounded to bfloat16


def found(
    case: Case, kind: str, rule: ScoreRule, evaluator: Evaluator, device: str, dtype: torch.dtype
) -> list[Tensor]:
    """Row losses and gradients of embeddings, candidates and bias."""
    problem = problem_of(case, kind, seed=11, num_anchors=70, num_candidates=60)
    rng = torch.Generator().manual_seed(12)
    inputs = [torch.randn(n, 5, generator=rng).to(device, dtype).requires_grad_() for n in (70, 60)]
    bias = torch.randn(60, generator=rng).to(device, dtype).requires_grad_()
    upstream = (torch.rand(70, generator=rng) - 0.3).to(device, dtype)
    loss = case.make().to(device, dtype)
    assert isinstance(loss, StatisticsLoss)
    targets = problem.targets.to(device)
    side = {name: block.to(device, dtype) for name, block in problem.side.items()}
    rows = loss.evaluate(factored(rule, *inputs, bias), targets, evaluator, side=side).weighted()
    gradients = torch.autograd.grad(rows @ upstream, [*inputs, bias])
    return [t.detach().double().cpu() for t in (rows, *gradients)]


def statistics_losses() -> tuple[int, list[str]]:
    """How many combinations were compared, and those that differ."""
    count, wrong = 0, list[str]()
    for case in CASES:
        if case.form != "statistics" or case.takes_ids:
            continue
        for kind in case.kinds:
            for index, rule in enumerate(RULES):
                expected = found(case, kind, rule, Dense(), "cpu", torch.float64)
                for evaluator in (Dense(), Blockwise(16, 32), Blockwise()):
                    ours = found(case, kind, rule, evaluator, "cuda", torch.float32)
                    count += 1
                    pairs = zip(ours, expected, strict=True)
                    gap = max(float((a - b).norm() / b.norm().clamp(min=1e-6)) for a, b in pairs)
                    if not gap < TOLERANCE * (10 if index == 2 else 1):  # distances lose digits
                        wrong.append(f"{case.name} {kind} {type(rule).__name__} {evaluator}: {gap:.1e}")
    return count, wrong


def half_precision() -> tuple[int, list[str]]:
    """Cross-entropy and binary cross-entropy of bfloat16 vectors against the same vectors in float64."""
    wrong, count = list[str](), 0
    rng = torch.Generator().manual_seed(4)
    x, w = torch.randn(300, 64, generator=rng).bfloat16(), torch.randn(5000, 64, generator=rng).bfloat16()
    bias = torch.randn(5000, generator=rng)
    labels = torch.randint(0, 5000, (300,), generator=rng)
    for loss in (CrossEntropy(), BinaryCrossEntropy(), InfoNCE()):
        for evaluator in (Blockwise(), Blockwise(512, 128)):
            results: list[list[Tensor]] = []
            for device, dtype in (("cuda", torch.bfloat16), ("cpu", torch.float64)):
                leaves = [t.to(device, dtype).requires_grad_() for t in (x, w)]
                beside = bias.to(device, torch.promote_types(dtype, torch.float32)).requires_grad_()
                value = loss.on_candidates(
                    *leaves, Targets.of_classes(labels, 5000).to(device), bias=beside, evaluator=evaluator
                )  # fmt: skip
                gradients = torch.autograd.grad(value, [*leaves, beside])
                results.append([t.detach().double().cpu() for t in (value, *gradients)])
            gap = [float((a - b).norm() / b.norm()) for a, b in zip(*results, strict=True)]
            count += 1
            if not (gap[0] < TOLERANCE and max(gap) < HALF_TOLERANCE):
                wrong.append(f"{type(loss).__name__} bfloat16 {evaluator}: {[f'{g:.1e}' for g in gap]}")
    return count, wrong


def other_losses() -> tuple[int, list[str]]:
    """The same of pair sums and semi-hard triplets."""
    rng, wrong = torch.Generator().manual_seed(3), list[str]()
    scores, positive = torch.randn(5000, generator=rng), (torch.rand(5000, generator=rng) < 0.1).float()
    embeddings, labels = torch.randn(400, 8, generator=rng), torch.randint(0, 100, (400,), generator=rng)

    def pair(device: str, dtype: torch.dtype, surrogate: str) -> list[Tensor]:
        s = scores.to(device, dtype).requires_grad_()
        value = MannWhitney(surrogate)(s, positive.to(device))  # pyright: ignore[reportArgumentType]
        return [value.detach().double().cpu(), torch.autograd.grad(value, s)[0].double().cpu()]

    def triplets(device: str, dtype: torch.dtype) -> list[Tensor]:
        x = embeddings.to(device, dtype).requires_grad_()
        value = SemiHardTriplet().on_embeddings(x, Targets.of_matches(labels).to(device))
        return [value.detach().double().cpu(), torch.autograd.grad(value, x)[0].double().cpu()]

    surrogates = ("logistic", "hinge", "squared_hinge")
    contests = [(s, pair("cuda", torch.float32, s), pair("cpu", torch.float64, s)) for s in surrogates]
    contests.append(("triplets", triplets("cuda", torch.float32), triplets("cpu", torch.float64)))
    for name, ours, expected in contests:
        gap = max(float((a - b).norm() / b.norm()) for a, b in zip(ours, expected, strict=True))
        if not gap < TOLERANCE:
            wrong.append(f"{name}: {gap:.1e}")
    return len(contests), wrong


def main() -> int:
    """Compares, prints, and says by the exit code whether all agree."""
    if not torch.cuda.is_available():
        print("No CUDA device here: nothing was compared.")
        return 0
    parts = [statistics_losses(), half_precision(), other_losses()]
    wrong = [one for _, found in parts for one in found]
    print(f"{torch.cuda.get_device_name()}: {sum(n for n, _ in parts)} compared, {len(wrong)} differ")
    print("\n".join(wrong[:40]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
