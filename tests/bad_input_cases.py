"""Bad input, case by case. As a script it runs each and prints what was raised, as JSON.

It runs in a process of its own, without the checker of signatures: a user has none either.
"""

from __future__ import annotations

import json
from typing import NamedTuple


class Case(NamedTuple):
    """An expression that must be refused, and words that its message must hold."""

    name: str
    expression: str
    words: tuple[str, ...]
    error: str = "MarginsError"


def _cases(*rows: tuple[str, str, str]) -> list[Case]:
    """Cases from rows of name, expression, and words with a bar between them."""
    return [Case(name, expression, tuple(words.split("|"))) for name, expression, words in rows]


CONSTRUCTORS = _cases(
    ("class label too large", "T.of_classes(ids(0, 3), 3)", "labels|[0, C) = [0, 3)|3 at row 1"),
    ("class label negative", "T.of_classes(ids(0, -1), 3)", "labels|-1 at row 1|-100"),
    ("class labels as floats", "T.of_classes(torch.ones(2), 3)", "labels|integers|labels.long()"),
    ("class labels as a column", "T.of_classes(ids(0, 1)[:, None], 3)", "labels|squeeze(1)"),
    ("class labels as a matrix", "T.of_classes(torch.eye(2), 2)", "labels|Targets.of_scores"),
    ("class labels as a list", "T.of_classes([0, 1], 2)", "labels|list"),
    ("no classes", "T.of_classes(ids(0), 0)", "num_classes|at least 1|0"),
    ("ignored index is a class", "T.of_classes(ids(0), 2, ignore_index=0)", "ignore_index|negative"),
    ("set label too large", "T.of_label_sets([[0], [5]], 3)", "label_sets|[0, 3)|5"),
    ("set label twice", "T.of_label_sets([[1, 1]], 3)", "label_sets|twice"),
    ("set labels flat", "T.of_label_sets([0, 1], 3)", "label_sets"),
    ("set labels as floats", "T.of_label_sets([[0.5]], 3)", "label_sets"),
    ("set labels as a matrix", "T.of_label_sets(torch.tensor([[0, 1]]), 3)", "label_sets|of_scores"),
    ("offsets fall", "T.of_label_sets((ids(0, 2, 1), ids(0, 1)), 3)", "offsets|rising"),
    ("offsets end early", "T.of_label_sets((ids(0, 1), ids(0, 1)), 3)", "offsets|0 to 2"),
    ("offsets as floats", "T.of_label_sets((torch.zeros(2), ids()), 3)", "offsets|integers"),
    ("no offsets", "T.of_label_sets((ids(), ids()), 3)", "offsets"),
    ("no set classes", "T.of_label_sets([[]], 0)", "num_classes|at least 1"),
    ("grades as integers", "T.of_scores(torch.eye(2).long())", "grades|floats|.float()"),
    ("grades in one row", "T.of_scores(torch.ones(3))", "grades|[B, C]"),
    ("grades negative", "T.of_scores(torch.tensor([[1.0, -0.5]]))", "grades|>= 0|-0.5"),
    ("grades NaN", "T.of_scores(torch.tensor([[1.0, float('nan')]]))", "grades|finite|nan at [0, 1]"),
    ("grades infinite", "T.of_scores(torch.tensor([[1.0, float('inf')]]))", "grades|finite|inf at [0, 1]"),
    ("grades as an array", "T.of_scores(np.eye(2))", "grades|ndarray"),
    ("match labels as floats", "T.of_matches(torch.ones(3))", "anchor_labels|integers"),
    ("candidate labels as floats", "T.of_matches(ids(0), torch.ones(3))", "candidate_labels|[C]"),
    ("same items too few", "T.of_matches(ids(0, 1), ids(0, 1), same_items=ids(0))", "same_items|[B]"),
    ("same item out of range", "T.of_matches(ids(0), ids(0, 1), same_items=ids(2))", "same_items|2"),
    ("pairs negative", "T.of_pairs(-1)", "num_pairs|-1"),
    ("item ids too few", "T.of_pairs(2, extra=1, item_ids=ids(0, 1))", "item_ids|[3]"),
    ("item ids as floats", "T.of_pairs(1, item_ids=torch.ones(1))", "item_ids|integers"),
    ("node out of range", "T.of_taxonomy(ids(9), tree())", "labels|[0, 3)|9"),
    ("decay zero", "T.of_taxonomy(ids(0), tree(), decay=0.0)", "decay|(0, 1]"),
    ("radius negative", "T.of_taxonomy(ids(0), tree(), radius=-1)", "radius|-1"),
    ("taxonomy with a cycle", "Taxonomy.from_edges([('a', 'b'), ('b', 'a')])", "edges|cycle|a > b > a"),
    ("values as integers", "T.of_values(ids(1, 2))", "values|floats"),
    ("values NaN", "T.of_values(torch.tensor([float('nan')]))", "values|finite|nan"),
    ("values of three axes", "T.of_values(torch.ones(1, 2, 3))", "values|[B, C]"),
)

TRANSFORMATIONS = _cases(
    ("weights negative", "two().weigh(rows=torch.tensor([1.0, -1.0]))", "weigh|>= 0|-1"),
    ("weights NaN", "two().weigh(rows=torch.tensor([1.0, float('nan')]))", "weigh|finite|nan"),
    ("weights too few", "two().weigh(rows=torch.ones(3))", "weigh(rows=)|[B]|[3]"),
    (
        "weights for two axes",
        "two().weigh(rows=torch.ones(2), candidates=torch.ones(3))",
        "weigh|exactly one",
    ),
    ("weights for no axis", "two().weigh()", "weigh|exactly one|none"),
    ("weights boolean", "two().weigh(rows=torch.ones(2) > 0)", "weigh|bool"),
    ("class weights too few", "two().weigh_classes(torch.ones(2))", "class_weight|[C]"),
    ("mask not boolean", "two().ignore(rows=torch.ones(2))", "ignore|boolean"),
    ("mask misshapen", "two().ignore(entries=torch.ones(3, 2) > 0)", "ignore(entries=)|[2, 3]"),
    ("margin infinite", "two().margin(rows=torch.tensor([0.0, float('inf')]))", "margin|finite|inf"),
    ("margin domain unknown", "two().margin(rows=torch.ones(2), on='some')", "margin(on=)|negatives|'some'"),
    ("margin misshapen", "two().margin(candidates=torch.ones(2))", "margin(candidates=)|[C]"),
    ("smoothing one", "two().smooth(1.0)", "smooth|[0, 1)|1.0"),
    ("smoothing of values", "T.of_values(torch.ones(2)).smooth(0.1)", "smooth|real values"),
    (
        "smoothing of mixed values",
        "T.of_values(torch.ones(2)).mix(T.of_values(torch.zeros(2)), 0.5).smooth(0.1)",
        "smooth|real values",
    ),
    ("share too large", "two().mix(two(), 1.5)", "share|[0, 1]|1.5"),
    ("share NaN", "two().mix(two(), float('nan'))", "share|[0, 1]|nan"),
    ("share misshapen", "two().mix(two(), torch.ones(3))", "share|[B]|[3]"),
    ("mixed with other shape", "two().mix(T.of_classes(ids(0), 3), 0.5)", "mix(other)|[2, 3]|1 x 3"),
    ("appended to other anchors", "two().append(T.of_classes(ids(0), 3))", "append(more)|[2, 'C']"),
    (
        "appended with row weights",
        "two().append(two().weigh(rows=torch.ones(2)))",
        "append(more)|row weights|after appending",
    ),
    ("joined with nothing", "T.cat([])", "parts|at least one"),
    ("joined with other classes", "T.cat([two(), T.of_classes(ids(0), 4)])", "parts|2 x 3|1 x 4"),
    ("joined with other storage", "T.cat([two(), T.of_scores(torch.ones(1, 3))])", "parts|DenseGrades"),
    ("joined with other smoothing", "T.cat([two(), two().smooth(0.1)])", "parts|smoothing"),
    (
        "joined with and without item ids",
        "T.cat([T.of_pairs(2), T.of_pairs(2, item_ids=ids(0, 1))])",
        "item ids",
    ),
    (
        "joined over other candidates",
        "T.cat([T.of_matches(ids(0, 1)), T.of_matches(ids(2, 3))])",
        "candidates",
    ),
    ("taken out of range", "two().take(ids(2))", "rows|[0, 2)|2"),
    ("taken by short mask", "two().take(torch.tensor([True]))", "rows|[B]|[1]"),
    ("taken by a number", "two()[0]", "rows|int"),
    ("positives of values", "T.of_values(torch.ones(2)).positives()", "targets|real values"),
)

SCORES = _cases(
    ("scores NaN", "L.CrossEntropy()(torch.tensor([[0.0, float('nan')]]), ids(0))", "scores|nan at [0, 1]"),
    ("scores infinite", "L.Focal()(torch.tensor([[0.0, float('inf')]]), ids(0))", "scores|inf at [0, 1]"),
    ("scores cancel", "L.CrossEntropy()(torch.tensor([[INF, -INF]]), ids(0))", "scores|2 in all"),
    ("scores as integers", "L.CrossEntropy()(torch.ones(2, 3).long(), ids(0, 1))", "scores|floats"),
    ("scores of three axes", "L.CrossEntropy()(torch.ones(2, 3, 4), ids(0, 1))", "scores|[B, C]"),
    (
        "scores without candidates",
        "L.CrossEntropy()(torch.ones(2, 0), T.of_scores(torch.ones(2, 0)))",
        "C >= 1",
    ),
    ("targets too few", "L.CrossEntropy()(torch.ones(2, 3), ids(0))", "targets|B = 2"),
    ("target out of range", "L.CrossEntropy()(torch.ones(2, 3), ids(0, 7))", "labels|7 at row 1"),
    (
        "targets of other width",
        "L.CrossEntropy()(torch.ones(2, 3), torch.ones(2, 4))",
        "targets|[2, 3]|[2, 4]",
    ),
    ("targets of other shape", "L.CrossEntropy()(torch.ones(2, 4), two())", "targets|(2, 4)|2 x 3"),
    ("targets as a column", "L.CrossEntropy()(torch.ones(2, 3), ids(0, 1)[:, None])", "targets|squeeze(1)"),
    (
        "targets as integers",
        "L.BinaryCrossEntropy()(torch.ones(2, 2), torch.eye(2).long())",
        "targets|.float()",
    ),
    (
        "targets in one row",
        "L.BinaryCrossEntropy()(torch.ones(2, 2), torch.ones(2))",
        "targets|targets[:, None]",
    ),
    ("targets as int32", "L.CrossEntropy()(torch.ones(2, 3), ids(0, 1).int())", "targets|targets.long()"),
    ("targets as a list", "L.CrossEntropy()(torch.ones(2, 3), [0, 1])", "targets|list"),
    ("binary targets too few", "L.BinaryCrossEntropy()(torch.ones(2), torch.ones(3))", "targets|[B] = [2]"),
    ("grade above one", "L.BinaryCrossEntropy()(torch.ones(1, 2), torch.tensor([[0.0, 2.0]]))", "targets|2"),
    ("embeddings NaN", "on(L.CrossEntropy(), torch.full((2, 4), float('nan')))", "embeddings|finite|nan"),
    ("embeddings in one row", "on(L.CrossEntropy(), torch.ones(4))", "embeddings|[B, d]"),
    ("candidates of other width", "on(L.CrossEntropy(), torch.ones(2, 5))", "candidates|d = 5"),
    ("bias misshapen", "on(L.CrossEntropy(), torch.ones(2, 4), bias=torch.ones(2))", "bias|[C] = [3]"),
    ("bias NaN", "on(L.CrossEntropy(), torch.ones(2, 4), bias=torch.full((3,), INF))", "bias|inf"),
    ("block size zero", "Blockwise(block_size=0)", "block_size|at least 1"),
    (
        "blockwise with a matrix",
        "L.CrossEntropy().evaluate(matrix_of(torch.ones(2, 3)), two(), Blockwise())",
        "evaluator|on_candidates",
    ),
    ("ids missing", "L.ALDRKLMemory(4)(torch.ones(2, 3), ids(0, 1))", "ids|None|ids=batch_ids"),
    ("ids out of range", "L.ALDRKLMemory(4)(torch.ones(2, 3), ids(0, 1), ids=ids(0, 4))", "ids|[0, 4)|4"),
    ("ids as floats", "L.ALDRKLMemory(4)(torch.ones(2, 3), ids(0, 1), ids=torch.ones(2))", "ids|int64"),
    ("ids too few", "L.ALDRKLMemory(4)(torch.ones(2, 3), ids(0, 1), ids=ids(0))", "ids|[B]"),
    ("side block missing", "L.SoftInfoNCE()(torch.ones(2, 3), two())", "side|similarity"),
    (
        "side block unasked",
        "L.CrossEntropy()(torch.ones(2, 3), two(), side={'x': torch.ones(2, 3)})",
        "side|x",
    ),
    ("side block misshapen", "soft(torch.ones(3, 3))", "side['similarity']|[B or 1, C or 1]|[3, 3]"),
    ("side block NaN", "soft(torch.full((2, 3), float('nan')))", "side['similarity']|finite|nan"),
    ("side block not a tensor", "soft([[1.0]])", "side['similarity']|list"),
)

LOSSES = _cases(
    ("reduction unknown", "L.CrossEntropy(reduction='average')", "reduction|weighted_mean|'average'"),
    ("gamma negative", "L.Focal(-1.0)", "gamma|[0, inf]|-1.0"),
    ("binary gamma NaN", "L.BinaryFocal(float('nan'))", "gamma|nan"),
    ("tau above two", "L.CompSum(tau=2.5)", "tau|[0, 2]|2.5"),
    ("temperature zero", "L.InfoNCE(temperature=0.0)", "temperature|(0, inf]|0.0"),
    ("learned temperature below its minimum", "L.LearnedTemperature(0.001)", "initial|0.001"),
    ("margin of a loss negative", "L.LDRKL(margin=-1.0)", "margin|-1.0"),
    ("base infinite", "L.MultiSimilarity(base=INF)", "base|inf"),
    ("lam infinite", "L.LDRKL(lam=INF)", "lam|inf"),
    ("alpha one", "L.ALDRKL(alpha=1.0)", "alpha|(1, inf]"),
    ("iterations zero", "L.ALDRKL(iterations=0)", "iterations|0"),
    ("normalise unknown", "L.ALDRKL(normalise='l2')", "normalise|'l1'|'l2'"),
    ("memory of no rows", "L.ALDRKLMemory(0)", "num_rows|0"),
    ("alpha outweighs beta", "soft(torch.ones(2, 3), alpha=4.0)", "alpha|beta|4"),
    ("several positives", "L.ALDRKL()(torch.ones(1, 3), T.of_label_sets([[0, 1]], 3))", "targets|LDRKL"),
    (
        "entry weights refused",
        "L.LDRKL()(torch.ones(2, 3), two().weigh(candidates=torch.ones(3)))",
        "targets|entry weights",
    ),
    (
        "entry weights of an appended part refused",
        "L.LDRKL()(torch.ones(2, 6), two().append(two().weigh(candidates=torch.ones(3))))",
        "targets|entry weights",
    ),
    (
        "contrast of real values",
        "L.SupCon()(torch.ones(2, 1), T.of_values(torch.ones(2)))",
        "targets|real values",
    ),
    (
        "references without labels",
        "L.SupCon().on_embeddings(torch.ones(2, 4), ids(0, 1), references=torch.ones(3, 4))",
        "reference_labels|together",
    ),
    ("labels of other length", "L.SupCon().on_embeddings(torch.ones(2, 4), ids(0, 1, 1))", "targets|(2, 2)"),
    ("documents too few", "L.InfoNCE().on_pairs(torch.ones(3, 4), torch.ones(2, 4))", "documents|B = 3"),
    ("surrogate unknown", "L.MannWhitney('exp')", "surrogate|hinge|'exp'"),
    ("scope unknown", "L.MannWhitney(scope='batch')", "scope|global|'batch'"),
    ("pairs of NaN scores", "L.MannWhitney()(torch.tensor([float('nan')]), torch.ones(1))", "scores|nan"),
    (
        "pairs without candidates",
        "L.MannWhitney()(torch.ones(2, 0), T.of_scores(torch.ones(2, 0)))",
        "C >= 1",
    ),
    ("top one", "L.LambdaRank(top=1)", "top|[2, inf]"),
    ("list of infinite scores", "L.LambdaRank()(torch.tensor([[INF]]), torch.ones(1, 1))", "scores|inf"),
    (
        "list with entry weights",
        "L.LambdaRank()(torch.ones(2, 3), two().weigh(candidates=torch.ones(3)))",
        "weight",
    ),
    ("metric unknown", "L.AnyLoss('recall')", "metric|f1|'recall'"),
    ("average unknown", "L.Dice(average='weighted')", "average|macro"),
    ("link unknown", "L.Dice(link='probit')", "link|sigmoid"),
    ("smoothing of Dice negative", "L.Dice(smoothing=-1.0)", "smoothing|-1.0"),
    ("softmax of one column", "L.AnyLoss(link='softmax')(torch.ones(2), torch.ones(2))", "C >= 2|sigmoid"),
    ("decay of one", "L.AnyLoss(decay=1.0)", "decay|0.999"),
    ("share beyond one", "L.AnyLoss(metric_share=1.5)", "metric_share|1.5"),
    ("mixture under softmax", "L.AnyLoss(metric_share=0.5, link='softmax')", "metric_share|sigmoid"),
    ("weight of AnyLoss unknown", "L.AnyLoss(class_weight='sqrt')", "class_weight|balanced|'sqrt'"),
    ("level unknown", "L.Dice(level='row')", "level|example|'row'"),
    ("example without smoothing", "L.Dice(level='example', smoothing=0.0)", "smoothing|(0"),
    ("ratio of hard negatives negative", "L.Dice(ohem_ratio=-1.0)", "ohem_ratio|-1.0"),
    ("prices both zero", "L.Tversky(0.0, 0.0)", "beta|(0"),
    ("one ordered class", "L.Cumulative()(torch.ones(2, 1), ids(0, 0))", "scores|C >= 2"),
    ("cut weights too few", "L.Cumulative(cut_weight=[1.0])(torch.ones(2, 3), ids(0, 1))", "cut_weight|= 2"),
    ("cut weights of zero", "L.Cumulative(cut_weight=[0.0])", "cut_weight|some > 0"),
    (
        "ordered classes with entry weights",
        "L.Cumulative()(torch.ones(2, 3), two().weigh(candidates=torch.ones(3)))",
        "targets|entry weights",
    ),
    ("clip zero", "L.EnsLoss(clip=0.0)", "clip|0.0"),
    ("lam range upside down", "L.EnsLoss(lam_range=(1.0, 0.0))", "lam_range|low <= high"),
    ("coefficients of integers", "L.EnsLoss()(ids(1, 2), torch.ones(2))", "scores|floats"),
    ("apart unknown", "L.OrthogonalProjection(apart='median')", "apart|mean_abs"),
    ("features in one row", "L.OrthogonalProjection()(torch.ones(3), ids(0, 1, 1))", "embeddings|[B, d]"),
    ("feature labels too few", "L.OrthogonalProjection()(torch.ones(3, 2), ids(0))", "labels|[B] = [3]"),
    ("feature NaN", "L.OrthogonalProjection()(torch.full((1, 1), float('nan')), ids(0))", "embeddings|nan"),
    ("no heads", "L.MultiHead({})", "heads|at least one"),
    ("head unknown", "L.MultiHead({'a': L.CrossEntropy()}, weights={'b': 1.0})", "weights|['a']|'b'"),
    (
        "head weight negative",
        "L.MultiHead({'a': L.CrossEntropy()}, weights={'a': -1.0})",
        "weights['a']|-1.0",
    ),
    ("head unreduced", "L.MultiHead({'a': L.CrossEntropy(reduction='none')})", "heads|'none'"),
    ("output missing", "L.MultiHead({'a': L.CrossEntropy()})({}, {'a': ids(0)})", "outputs|['a']"),
    ("target missing", "L.MultiHead({'a': L.CrossEntropy()})({'a': torch.ones(1, 2)}, {})", "targets|['a']"),
)

OUTPUTS = _cases(
    ("link of maps unknown", "L.SSIM(link='softmax')", "link|'sigmoid', 'identity'|softmax"),
    ("three dims", "L.SSIM(dims=3, link='sigmoid')", "dims|1 (sequences) or 2 (images)|3"),
    ("maps without channels", "L.HybridMask()(torch.ones(2, 8), torch.ones(2, 8))", "maps|maps[:, None]"),
    ("masks as integers", "L.HybridMask()(torch.ones(1, 1, 4, 4), ids(1))", "targets|targets.float()"),
    (
        "known as floats",
        "L.HybridMask()(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4), known=torch.ones(1, 1, 4, 4))",
        "known|a mask",
    ),
    (
        "weights of maps too few",
        "L.HybridMask()(torch.ones(2, 1, 4, 4), torch.ones(2, 1, 4, 4), weight=torch.ones(1))",
        "weight|[B] = [2]",
    ),
    ("base of hypotheses unknown", "L.MinOverHypotheses(2, base='mae')", "base|psnr|'mae'"),
    (
        "hypotheses without their axis",
        "L.MinOverHypotheses(2)(torch.ones(3), torch.ones(3))",
        "hypotheses|[B, 2, ...]",
    ),
    ("hypotheses of integers", "L.MinOverHypotheses(1)(torch.ones(1, 1).long(), torch.ones(1))", "floats"),
    ("adversary unknown", "L.PatchAdversarial('wasserstein')", "adversary|hinge"),
    (
        "critic of other maps",
        "L.PatchDiscriminator(2, generator=torch.Generator())(torch.ones(1, 1, 16, 16), torch.ones(16, 16))",
        "maps|2 channels together",
    ),
)

SECOND_DERIVATIVES = [
    Case(
        "second derivative blockwise",
        "twice(blockwise_loss)",
        ("dense evaluator",),
        "OnceDifferentiableError",
    ),
    Case(
        "second derivative of pairs", "twice(pairs_loss)", ("first derivatives",), "OnceDifferentiableError"
    ),
]

CASES = [*CONSTRUCTORS, *TRANSFORMATIONS, *SCORES, *LOSSES, *OUTPUTS, *SECOND_DERIVATIVES]

ACCEPTED = _cases(
    ("two classes", "two()", ""),
    ("embeddings", "on(L.CrossEntropy(), torch.ones(2, 4))", ""),
    ("side block", "soft(torch.ones(2, 3))", ""),
    ("ids", "L.ALDRKLMemory(4)(torch.ones(2, 3), ids(0, 1), ids=ids(0, 1))", ""),
    ("second derivative dense", "twice(dense_loss)", ""),
)


def names() -> dict[str, object]:
    """What the expressions may use."""
    import numpy as np
    import torch
    from torch import Tensor

    from margins import losses
    from margins.engine import Blockwise, Dense
    from margins.engine.sources import matrix_of
    from margins.targets import Targets
    from margins.taxonomy import Taxonomy

    def ids(*numbers: int) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long)

    def two() -> Targets:
        return Targets.of_classes(ids(0, 1), 3)

    def on(loss: losses.StatisticsLoss, embeddings: Tensor, **options: Tensor) -> Tensor:
        return loss.on_candidates(embeddings, torch.ones(3, 4), two(), **options)

    def soft(similarity: Tensor, **options: float) -> Tensor:
        return losses.SoftInfoNCE(**options)(torch.ones(2, 3), two(), side={"similarity": similarity})

    def twice(loss: object) -> None:
        x = torch.eye(2, 4).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x), x, create_graph=True)
        gradient.square().sum().backward()

    def of(evaluator: object) -> object:
        return lambda x: losses.CrossEntropy().on_candidates(x, torch.ones(3, 4), two(), evaluator=evaluator)

    return {
        "L": losses, "T": Targets, "Taxonomy": Taxonomy, "Blockwise": Blockwise, "INF": float("inf"),
        "torch": torch, "np": np, "matrix_of": matrix_of,
        "ids": ids, "two": two, "on": on, "soft": soft, "twice": twice,
        "tree": lambda: Taxonomy.from_edges([("a", "b"), ("a", "c")]),
        "dense_loss": of(Dense()), "blockwise_loss": of(Blockwise()),
        "pairs_loss": lambda x: losses.MannWhitney()(x[0], torch.tensor([1.0, 0.0, 0.0, 0.0])),
    }  # fmt: skip


def outcome(expression: str, known: dict[str, object]) -> tuple[str, str]:
    """Type and message of what the expression raises; two empty strings when it raises nothing."""
    try:
        eval(expression, dict(known))  # noqa: S307  (expressions of this file)
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""


if __name__ == "__main__":
    here = names()
    print(json.dumps({case.name: outcome(case.expression, here) for case in (*CASES, *ACCEPTED)}))
