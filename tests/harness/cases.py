"""Every carded loss with its variants, its independent reference, and the targets it takes.

A case supplies inputs and a reference. Which laws it must pass follows from the form of its class.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from harness.problems import Problem
from margins import losses
from margins.losses import Loss
from reference import (
    binary,
    closed_forms,
    contrastive,
    counts,
    cumulative,
    features,
    noise_peers,
    overlap,
    ranking,
    robust,
    softmax,
    spherical,
    topk,
)

Reference = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """One variant of a loss."""

    name: str
    make: Callable[..., Loss]
    reference: Reference
    kinds: tuple[str, ...] = ("classes", "label sets", "scores")
    entry_weights: bool = True
    side_names: tuple[str, ...] = ()
    reads_margin: bool = True  # whether the reference subtracts margins itself
    takes_ids: bool = False

    @property
    def component(self) -> str:
        return self.name.split("[")[0]

    @property
    def form(self) -> str:
        return getattr(losses, self.component).form

    def expected(self, problem: Problem) -> Any:
        """The reference's answer."""
        scores, grades, known, weight, margin = problem.arrays
        if not self.reads_margin:
            return self.reference(scores - margin, grades, known, weight)
        if self.side_names:
            sides = [problem.side[name].numpy() for name in self.side_names]
            return self.reference(scores, grades, known, weight, margin, *sides)
        return self.reference(scores, grades, known, weight, margin)


def _lambda_rank(scores: Any, grades: Any, known: Any, weight: Any, *, top: int) -> Any:
    return ranking.lambda_rank(scores, grades, known, top=top)


def _summed(active: Callable[[], Any], passive: Callable[[], Any], **options: Any) -> Loss:
    return losses.WeightedSum([(2.0, active()), (0.3, passive())], **options)


def _told(make: Callable[..., Loss], code: str) -> Callable[..., Loss]:
    """A loss whose choice is told in a warning, made without it."""

    def made(**options: Any) -> Loss:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=code)
            return make(**options)

    return made


def _nested_dice(scores: Any, grades: Any, known: Any, weight: Any, margin: Any, **options: Any) -> Any:
    # The reference adds up the five levels, each of which has a positive in problems of scores.
    return cumulative.cumulative_dice(scores, grades, known, weight, margin, **options) / 5


MULTI = ("label sets", "scores", "matches", "classes")
POSITIVE_SETS = ("label sets", "matches", "classes")

CASES = (
    Case("CrossEntropy", losses.CrossEntropy, softmax.cross_entropy, MULTI),
    Case("Focal", partial(losses.Focal, 2.0), partial(softmax.focal, gamma=2.0)),
    Case("Focal[0.5]", partial(losses.Focal, 0.5), partial(softmax.focal, gamma=0.5)),
    Case("CompSum", partial(losses.CompSum, 1.7), partial(softmax.comp_sum, tau=1.7)),
    Case("CompSum[2]", partial(losses.CompSum, 2.0), partial(softmax.comp_sum, tau=2.0)),
    Case("BinaryCrossEntropy", losses.BinaryCrossEntropy, binary.binary_cross_entropy, MULTI),
    Case("BinaryFocal", partial(losses.BinaryFocal, 2.0), partial(binary.binary_focal, gamma=2.0), MULTI),
    Case(
        "LDRKL",
        partial(losses.LDRKL, 2.0, margin=0.3),
        partial(robust.ldr_kl, lam=2.0, margin_c=0.3),
        ("classes",),
        entry_weights=False,
    ),
    Case(
        "ALDRKL",
        partial(losses.ALDRKL, 3.0),
        partial(robust.aldr_kl, lam0=3.0, alpha=2.0, margin_c=0.1, normalise="l1", iterations=30),
        ("classes",),
        entry_weights=False,
    ),
    Case(
        "ALDRKL[softplus]",
        partial(losses.ALDRKL, 1.0, alpha=3.0, normalise="softplus", iterations=10),
        partial(robust.aldr_kl, lam0=1.0, alpha=3.0, margin_c=0.1, normalise="softplus", iterations=10),
        ("classes",),
        entry_weights=False,
    ),
    Case(
        "ALDRKL[None]",
        partial(losses.ALDRKL, 2.0, margin=0.0, normalise=None, iterations=10),
        partial(robust.aldr_kl, lam0=2.0, alpha=2.0, margin_c=0.0, normalise=None, iterations=10),
        ("classes",),
        entry_weights=False,
    ),
    Case(
        "ALDRKLMemory",
        partial(losses.ALDRKLMemory, 50, 3.0),
        partial(robust.aldr_kl, lam0=3.0, alpha=2.0, margin_c=0.1, normalise="l1", iterations=1),
        ("classes",),
        entry_weights=False,
        takes_ids=True,
    ),
    Case(
        "TruncatedGCE",
        partial(losses.TruncatedGCE, 0.6, threshold=0.2),
        partial(noise_peers.truncated_gce, q=0.6, threshold=0.2),
    ),
    Case(
        "AsymmetricGCE",
        partial(losses.AsymmetricGCE, 0.6, q=0.4),
        partial(noise_peers.asymmetric_gce, a=0.6, q=0.4),
    ),
    Case(
        "AsymmetricUnhinged",
        partial(losses.AsymmetricUnhinged, 3.0, q=0.4),
        partial(noise_peers.asymmetric_unhinged, a=3.0, q=0.4),
    ),
    Case(
        "NormalizedCrossEntropy",
        losses.NormalizedCrossEntropy,
        noise_peers.normalised_cross_entropy,
        entry_weights=False,
    ),
    Case(
        "ReverseCrossEntropy",
        losses.ReverseCrossEntropy,
        noise_peers.reverse_cross_entropy,
        ("classes",),
        entry_weights=False,
    ),
    Case(
        "SymmetricCrossEntropy",
        partial(losses.SymmetricCrossEntropy, 0.3),
        partial(noise_peers.symmetric_cross_entropy, share=0.3),
        ("classes",),
        entry_weights=False,
    ),
    Case(
        "JensenShannon",
        partial(losses.JensenShannon, 0.3),
        partial(noise_peers.jensen_shannon, pi=0.3),
        ("classes",),
        entry_weights=False,
    ),
    Case(
        "WeightedSum",
        partial(_summed, losses.NormalizedCrossEntropy, losses.ReverseCrossEntropy),
        partial(
            noise_peers.active_passive,
            active=noise_peers.normalised_cross_entropy,
            passive=noise_peers.reverse_cross_entropy,
            active_weight=2.0,
            passive_weight=0.3,
        ),
        ("classes",),
        entry_weights=False,
    ),
    Case(
        "WeightedSum[weights]",
        partial(_summed, partial(losses.CompSum, 1.7), partial(losses.AsymmetricGCE, 1.0, q=2.0)),
        partial(
            noise_peers.active_passive,
            active=noise_peers.generalised_cross_entropy,
            passive=noise_peers.asymmetric_gce,
            active_weight=2.0,
            passive_weight=0.3,
        ),
    ),
    Case("ZLoss", partial(losses.ZLoss, 0.5, 2.0), partial(spherical.z_loss, a=0.5, b=2.0)),
    Case("SquaredError", losses.SquaredError, spherical.squared_error),
    Case(
        "SphericalSoftmax",
        partial(losses.SphericalSoftmax, 0.1),
        partial(spherical.spherical_softmax, eps=0.1),
    ),
    Case("TaylorSoftmax", losses.TaylorSoftmax, spherical.taylor_softmax),
    Case("InfoNCE", partial(losses.InfoNCE, 0.7), partial(contrastive.info_nce, temperature=0.7), MULTI),
    Case(
        "InfoNCE[learned]",
        lambda **kw: losses.InfoNCE(losses.LearnedTemperature(0.7), **kw),
        partial(contrastive.info_nce, temperature=float(losses.LearnedTemperature(0.7)().detach())),
        MULTI,
    ),
    Case("SupCon", partial(losses.SupCon, 0.6), partial(contrastive.sup_con, temperature=0.6), POSITIVE_SETS),
    Case(
        "DecoupledSoftmax",
        partial(losses.DecoupledSoftmax, 0.8),
        partial(contrastive.decoupled_softmax, temperature=0.8),
        POSITIVE_SETS,
    ),
    Case(
        "SoftInfoNCE",
        partial(losses.SoftInfoNCE, 0.8, similarity_temperature=0.5, alpha=0.9),
        partial(contrastive.soft_info_nce, alpha=0.9, beta=1.0, t=0.5, floor=0.1, temperature=0.8),
        POSITIVE_SETS,
        entry_weights=False,
        side_names=("similarity",),
    ),
    Case(
        "MultiSimilarity",
        partial(losses.MultiSimilarity, 2.0, 5.0),
        partial(contrastive.multi_similarity, alpha=2.0, beta=5.0, base=0.5, epsilon=0.1),
        POSITIVE_SETS,
    ),
    Case(
        "MultiSimilarity[unmined]",
        partial(losses.MultiSimilarity, 2.0, 5.0, epsilon=None),
        partial(contrastive.multi_similarity, alpha=2.0, beta=5.0, base=0.5, epsilon=None),
        POSITIVE_SETS,
    ),
    Case(
        "SoftTopK",
        partial(losses.SoftTopK, 2, sharpness=1.5),
        partial(topk.soft_top_k, k=2, sharpness=1.5),
        POSITIVE_SETS,
        entry_weights=False,
    ),
    *(
        Case(
            f"MannWhitney[{surrogate},{method},{scope}]",
            partial(losses.MannWhitney, surrogate, temperature=0.7, scope=scope, method=method),
            partial(ranking.mann_whitney, surrogate=surrogate, temperature=0.7, scope=scope),
            POSITIVE_SETS,
            reads_margin=False,
        )
        for surrogate, method, scope in (
            ("logistic", "auto", "global"),
            ("logistic", "multipole", "column"),
            ("hinge", "direct", "row"),
            ("hinge", "sorted", "global"),
            ("squared_hinge", "sorted", "row"),
            ("square", "moments", "column"),
            ("linear", "moments", "global"),
        )
    ),
    Case(
        "CounterfactualPair[row]",
        partial(losses.CounterfactualPair, 0.7),
        partial(ranking.mann_whitney, surrogate="logistic", temperature=0.7, scope="row"),
        POSITIVE_SETS,
        reads_margin=False,
    ),
    Case(
        "SemiHardTriplet",
        partial(losses.SemiHardTriplet, 4.0),
        partial(ranking.semi_hard_triplet, margin=4.0),
        POSITIVE_SETS,
        reads_margin=False,
    ),
    *(
        Case(
            f"AnyLoss[{metric},{average},{link}]",
            partial(losses.AnyLoss, metric, beta=2.0, average=average, link=link),
            partial(counts.any_loss, metric=metric, beta=2.0, average=average, link=link),
            POSITIVE_SETS,
            reads_margin=False,
        )
        for metric, average, link in (
            ("f1", "macro", "sigmoid"),
            ("fbeta", "micro", "sigmoid"),
            ("bacc", "macro", "softmax"),
            ("gmean", "macro", "sigmoid"),
            ("mcc", "macro", "sigmoid"),
            ("jaccard", "micro", "softmax"),
        )
    ),
    *(
        Case(
            f"Dice[{square},{average}]",
            partial(losses.Dice, square=square, average=average),
            partial(counts.dice, smoothing=1.0, square=square, average=average, link="sigmoid"),
            POSITIVE_SETS,
            reads_margin=False,
        )
        for square, average in ((True, "macro"), (False, "micro"))
    ),
    *(
        Case(
            f"AnyLoss[{name}]",
            partial(losses.AnyLoss, **options),
            reference,
            POSITIVE_SETS,
            reads_margin=False,
        )
        for name, options, reference in (
            ("not amplified", {"amplify": None}, partial(counts.any_loss, metric="f1", amplify=None)),
            ("earlier", {"metric": "mcc", "decay": 0.5}, partial(counts.any_loss, metric="mcc")),
            (
                "mixture,micro",
                {"metric": "bacc", "metric_share": 0.3, "average": "micro"},
                partial(overlap.any_loss_mixture, metric="bacc", share=0.3, average="micro"),
            ),
        )
    ),
    *(
        Case(f"Dice[{name}]", make, reference, POSITIVE_SETS, reads_margin=False)
        for name, make, reference in (
            (
                "adjusted",
                _told(partial(losses.Dice, alpha=0.5), "MG030"),
                partial(overlap.dsc_batch, alpha=0.5),
            ),
            (
                "example,softmax",
                _told(partial(losses.Dice, level="example", square=False, link="softmax"), "MG031"),
                partial(overlap.dsc_example, alpha=0.0, link="softmax"),
            ),
        )
    ),
    Case("Dice[scores]", losses.Dice, overlap.dsc_batch, ("scores",), reads_margin=False),
    Case(
        "Tversky",
        partial(losses.Tversky, 0.2, 0.7, smoothing=0.5),
        partial(overlap.tversky_batch, alpha=0.2, beta=0.7, smoothing=0.5),
        (*POSITIVE_SETS, "scores"),
        reads_margin=False,
    ),
    Case(
        "Tversky[example,micro]",
        _told(partial(losses.Tversky, 0.2, 0.7, level="example", average="micro"), "MG031"),
        partial(overlap.tversky_example, alpha=0.2, beta=0.7, average="micro"),
        POSITIVE_SETS,
        reads_margin=False,
    ),
    Case(
        "Cumulative",
        losses.Cumulative,
        partial(cumulative.cumulative_cross_entropy, normalised=False),
        ("classes", "scores", "label sets"),
        entry_weights=False,
    ),
    *(
        Case(
            f"NestedDice[{square}]",
            partial(losses.NestedDice, square=square, smoothing=0.5),
            partial(_nested_dice, square=square, smoothing=0.5),
            ("scores",),
            entry_weights=False,
        )
        for square in (True, False)
    ),
    Case("EnsLoss", losses.EnsLoss, robust.ens_loss_coefficients, ("label sets", "classes")),
    Case(
        "LambdaRank",
        partial(losses.LambdaRank, top=4),
        partial(_lambda_rank, top=4),
        ("scores", "label sets"),
        entry_weights=False,
        reads_margin=False,
    ),
    Case("OrthogonalProjection", losses.OrthogonalProjection, features.orthogonal_projection),
    Case(
        "PrototypeOrthogonalProjection",
        partial(losses.PrototypeOrthogonalProjection, 4, 4),
        closed_forms.orthogonal_prototypes,
    ),
    Case("MultiHead", losses.MultiHead, lambda: None),
    Case("Aggregated", losses.Aggregated, lambda: None),
    Case("OrderSearch", losses.OrderSearch, lambda: None),
    Case("SSIM", partial(losses.SSIM, link="sigmoid"), lambda: None),
    Case("SoftIoU", partial(losses.SoftIoU, link="sigmoid"), lambda: None),
    Case("HybridMask", losses.HybridMask, lambda: None),
    Case("DeepSupervision", partial(losses.DeepSupervision, losses.HybridMask()), lambda: None),
    Case("MinOverHypotheses", partial(losses.MinOverHypotheses, 2), lambda: None),
    Case("ConceptExplanation", losses.ConceptExplanation, lambda: None),
    Case("AttributionEntropy", losses.AttributionEntropy, lambda: None),
    Case("ForwardModelLoss", partial(losses.ForwardModelLoss, lambda maps: maps["a"]), lambda: None),
    Case("PatchAdversarial", losses.PatchAdversarial, lambda: None),
)

BY_NAME = {case.name: case for case in CASES}
