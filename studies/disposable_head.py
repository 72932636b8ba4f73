"""A head for training alone: trained on even and odd, probed for the digit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ground import Rows, digits, fit, perceptron, predict
from margins.diagnose import layer_probe
from margins.evidence import Effect, Study
from margins.heads import Disposable, LinearHead
from margins.losses import CrossEntropy, SupCon

WIDTH = 64


def network(arm: str, settings: Mapping[str, Any], seed: int) -> tuple[nn.Module, Disposable, nn.Module]:
    """Encoder, disposable head, and what stands behind it."""
    kind = arm.split()[1]
    draws = torch.Generator().manual_seed(seed + 1)
    decay = settings.get("decay")
    head = Disposable(WIDTH, kind=kind, decay=decay, generator=draws)  # type: ignore[arg-type]
    behind = LinearHead(WIDTH, 2, generator=draws) if arm.startswith("ce") else nn.Identity()
    return perceptron((64, 256, WIDTH), seed), head, behind


def probed(features: Mapping[str, Tensor], digit: Tensor, num_train: int) -> dict[str, float]:
    """Accuracy of probes for the digit on a quarter of the training rows, and effective ranks, by layer."""
    used = (torch.arange(len(digit)) % 4 == 0) | (torch.arange(len(digit)) >= num_train)
    is_test = (torch.arange(len(digit)) >= num_train)[used]
    layers, found = {name: values[used] for name, values in features.items()}, dict[str, float]()
    for way, standardise in (("as it is", False), ("standardised", True)):
        for probe in layer_probe(layers, {"digit": digit[used]}, is_test=is_test, standardise=standardise):
            found[f"{probe.layer}, {way}"] = probe.accuracy["digit"]
            found[f"{probe.layer}, rank"] = probe.effective_rank
    return found


def trial(arm: str, settings: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Trains on even and odd; the probe learns ten digits on a quarter of the training rows."""
    division = digits(seed, train=0.7, select=0.1)
    encoder, head, behind = network(arm, settings, seed)
    whole, contrast, train = nn.Sequential(encoder, head, behind), SupCon(0.1), division.train
    is_ce = arm.startswith("ce")
    loss: Callable[[Tensor, Tensor], Tensor] = CrossEntropy() if is_ce else contrast.on_embeddings
    fit(
        whole, loss, train.x, train.y % 2, seed=seed, lr=settings["lr"], epochs=100, batch_size=256,
        weight_decay=settings.get("weight_decay", 1e-3), optimizer="adam",
    )  # fmt: skip

    def probes(rows: Rows, *, both: bool) -> dict[str, float]:
        x, digit = torch.cat([train.x, rows.x]), torch.cat([train.y, rows.y])
        kept = predict(encoder, x)
        return probed(
            {"kept": kept, **({"behind": predict(head, kept)} if both else {})}, digit, len(train.x)
        )

    chooses = probes(division.select, both=False)
    chosen = (chooses["kept, as it is"] + chooses["kept, standardised"]) / 2
    return {**probes(division.test, both=is_ce), "select": chosen}


def gain(arm: str, peer: str, figure: str) -> Any:
    """Accuracy on one arm's kept features minus that on another's."""
    return lambda f: f[arm][f"kept, {figure}"] - f[peer][f"kept, {figure}"]


RATES = {"lr": (1e-3, 3e-3), "weight_decay": (1e-3, 1e-1)}

STUDY = Study(
    name="disposable_head",
    cards=("margins.heads.Disposable", "margins.diagnose.layer_probe"),
    claim="trained with a head that is thrown away, the features before it serve finer labels than those of "
    "training; a fixed reweighting with one parameter does about as much as a learned head",
    source="Xue et al. 2024, arXiv 2403.11391, experiments from coarse to fine labels",
    data="scikit-learn digits, trained on even and odd, judged by the digit",
    protocol="divided anew for each seed (70 % train, 10 % select, 20 % test); perceptron 64-256-64, 100 "
    "epochs of AdamW, batches of 256; SupCon at temperature 0.1, or cross-entropy; a logistic regression "
    "for the ten digits on a quarter of the training rows, on features as they are and standardised; rate "
    "with weight decay or with the reweighting's decay are chosen by the mean of both on select rows",
    arms={
        "supcon none": RATES,
        "supcon mlp": RATES,
        "supcon reweight": {"lr": (1e-3, 3e-3), "decay": (1.2, 1.5)},
        "ce none": RATES,
        "ce mlp": RATES,
    },
    budget=4,
    trial=trial,
    effects=(
        Effect(
            "SupCon, features as they are: MLP head - none",
            gain("supcon mlp", "supcon none", "as it is"),
            reaches=0.3,
        ),
        Effect("SupCon, standardised: MLP head - none", gain("supcon mlp", "supcon none", "standardised")),
        Effect(
            "SupCon, features as they are: reweighting - MLP head",
            gain("supcon reweight", "supcon mlp", "as it is"),
            above=-0.03,
        ),
        Effect(
            "cross-entropy, standardised: MLP head - none",
            gain("ce mlp", "ce none", "standardised"),
            reaches=0.02,
        ),
        Effect(
            "cross-entropy, standardised: before the MLP head - behind it",
            lambda f: f["ce mlp"]["kept, standardised"] - f["ce mlp"]["behind, standardised"],
        ),
    ),
    num_seeds=7,
    num_tuning_seeds=1,
    test_to_train=0.29,
)
