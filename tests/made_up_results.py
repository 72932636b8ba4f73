"""Finished comparisons with made-up numbers, for tests of what is done with a result."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations
from statistics import fmean
from typing import Any

from margins.compare.results import (
    ComparisonResult,
    Difference,
    FailedRecipe,
    LastLayer,
    Left,
    Preview,
    RecipeResult,
    RunDescription,
)
from margins.evaluation.verdicts import Verdict

RECIPES: dict[str, tuple[str, str, dict[str, Any], float]] = {
    "logit_adjustment": (
        "Logit adjustment (tau = 1)",
        "Shifts each class's logit by its log share, so that rare classes count as much as frequent ones.",
        {"tau": 1.0},
        0.034,
    ),
    "gce": (
        "Generalised cross-entropy (q = 0.7)",
        "Between cross-entropy and mean absolute error: rows that look mislabelled weigh less.",
        {"q": 0.7},
        0.021,
    ),
    "smoothing": (
        "Label smoothing (eps = 0.1)",
        "Spreads a tenth of every label over all classes.",
        {"eps": 0.1},
        0.004,
    ),
    "cross_entropy": ("Cross-entropy", "The plain baseline: no tricks.", {}, 0.0),
    "focal": ("Focal loss (gamma = 2)", "Weighs down rows that are easy already.", {"gamma": 2.0}, -0.003),
    "bce": ("Binary cross-entropy, one against the rest", "Every class by itself.", {}, -0.011),
    "mae": (
        "Mean absolute error",
        "The most robust to wrong labels, and the slowest to train.",
        {"tau": 0.0},
        -0.087,
    ),
}


def made_up_result(
    *, class_counts: dict[str, int] | None = None, recipes: int = 7, folds: int = 10, **description: Any
) -> ComparisonResult:
    """Make a comparison that looks like a real one; `description` replaces fields of its description."""
    noise = random.Random(5)
    counts = class_counts or {f"topic {i:02d}": 240 - 3 * i for i in range(60)}
    level = [noise.gauss(0.79, 0.012) for _ in range(folds)]
    results: list[RecipeResult] = []
    for name, (title, why, settings, effect) in list(RECIPES.items())[:recipes]:
        scores = [base + effect + noise.gauss(0, 0.004) for base in level]
        results.append(
            RecipeResult(
                name=name, title=title, why=why, settings=settings, fold_scores=scores, mean=fmean(scores),
                seed_spread=None, rank=1, rank_low=recipes, epochs=noise.uniform(8, 30),
                seconds=noise.uniform(20, 300),
            )
        )  # fmt: skip
    results.sort(key=lambda recipe: -recipe.mean)
    differences = [_difference(a, b) for a, b in combinations(results, 2)]
    results = [replace(recipe, rank=1 + _num_better(recipe, differences)) for recipe in results]
    return ComparisonResult(
        description=_description(counts, folds=folds, **description),
        recipes=results,
        differences=differences,
        baseline="cross_entropy" if recipes >= 4 else results[0].name,
        confidence=0.95,
        detectable_difference=0.0112,
        answer="Logit adjustment (tau = 1) beat Cross-entropy (macro F1 0.7860): macro F1 0.8191, a "
        "difference of +0.0331 [+0.0241, +0.0421] (95 % interval in brackets). So did Generalised "
        "cross-entropy (q = 0.7). The data do not tell it apart from Generalised cross-entropy (q = 0.7).",
        warnings=["MG021 3 % of the rows occur twice; copies were kept in the same fold."],
        rope=0.005,
        preview=Preview(
            low=0.0061,
            high=0.0213,
            how="pilot",
            sentences=["10 outer folds, 7 recipes: a true difference of 0.0061 would be found."],
        ),
        failed=[
            FailedRecipe(
                name="ranking",
                title="Ranking surrogate",
                num_failed=3,
                num_folds=10,
                error="scores: expected finite numbers, got nan",
            )
        ],
        left_out={"mann_whitney": "it is for other metrics than macro_f1"},
        left=Left(
            recipe=results[0].name,
            values={},
            model="model",
            num_seeds=3,
            scores={results[0].name: 0.8114, results[-1].name: 0.7817},
            others={name: {"accuracy": 0.83} for name in (results[0].name, results[-1].name)},
            difference=0.0297,
            low=0.0113,
            high=0.0471,
            num_openings=1,
            last_layer=LastLayer(
                spread=0.2134, off_diagonal=0.3217, disagreement=0.0061, shortest="refund", length=0.41
            ),
        ),
    )


def _difference(a: RecipeResult, b: RecipeResult) -> Difference:
    mean = a.mean - b.mean
    verdict: Verdict = "undecided" if abs(mean) < 0.012 else "better" if mean > 0 else "worse"
    verdict = "practically the same" if abs(mean) < 0.005 else verdict
    p = min(1.0, 0.05 * (0.012 / max(abs(mean), 1e-6)) ** 2)
    return Difference(
        first=a.name, second=b.name, mean=mean, low=mean - 0.009, high=mean + 0.009, p_value=p / 3, p_holm=p,
        verdict=verdict,
    )  # fmt: skip


def _num_better(recipe: RecipeResult, differences: list[Difference]) -> int:
    """In how many pairs the other recipe, always the first here, is the better one."""
    return sum(d.second == recipe.name and d.verdict == "better" for d in differences)


def _description(counts: dict[str, int], *, folds: int, **changed: Any) -> RunDescription:
    fields: dict[str, Any] = {
        "source": "support-tickets.csv.gz",
        "fingerprint": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "kind": "text",
        "inputs": ["text"],
        "target": "topic",
        "metric": "macro_f1",
        "num_rows": sum(counts.values()),
        "num_classes": len(counts),
        "class_counts": counts,
        "chance_level": 0.0003,
        "num_folds": 5,
        "num_repeats": folds // 5,
        "num_seeds": 1,
        "encoder": "hashed words and character n-grams, embedding bag of 128 dimensions trained end to end",
        "protocol": [
            "Stratified outer folds, the same for every recipe; their rows are opened once, to report.",
            "Of every training fold a tenth is set aside to choose the epoch whose weights are kept.",
            "AdamW, 30 epochs at most, the same learning rate for every recipe.",
        ],
        "versions": {"margins": "0.1.0", "torch": "2.13.0", "python": "3.11.9"},
        "started": "2026-01-05T09:30:00Z",
        "seconds": 1384.0,
    }
    return RunDescription(**{**fields, **changed})
