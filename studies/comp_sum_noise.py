"""The comp-sum family under wrong labels: cross-entropy, two bounded losses, and the absolute error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ground import accuracy, digits, fit, flipped, perceptron
from margins.evidence import Effect, Study
from margins.losses import CompSum

SHARES = {"noisy": 0.4, "clean": 0.0}
TAUS = {"tau_1": 1.0, "tau_1.5": 1.5, "tau_1.7": 1.7, "tau_2": 2.0}
RATES = {"noisy": (0.2, 0.5), "clean": (0.1, 0.2)}
DECAYS = (5e-4, 2e-3, 5e-3)


def trial(arm: str, settings: Mapping[str, Any], seed: int) -> dict[str, float]:
    """One perceptron on labels of which some are wrong, those that choose settings among them."""
    tau, labels = arm.split(" ")
    rows = digits(seed, train=0.7, select=0.1)
    given = flipped(rows.train.y, SHARES[labels], seed, num_classes=10)
    chosen_by = flipped(rows.select.y, SHARES[labels], seed + 50_000, num_classes=10)
    network = perceptron([64, 128, 128, 10], seed)
    options = {"seed": seed, "epochs": 60, "batch_size": 128, "cosine": True, **settings}
    fit(network, CompSum(TAUS[tau]), rows.train.x, given, **options)
    return {
        "select": accuracy(network, rows.select.x, chosen_by),
        "test": accuracy(network, *rows.test),
        "train": accuracy(network, rows.train.x, given),
    }


def _gain(first: str, second: str) -> Any:
    return lambda f: f[first]["test"] - f[second]["test"]


STUDY = Study(
    name="comp_sum_noise",
    cards=("margins.losses.CompSum",),
    claim="Comp-sum losses between cross-entropy and the absolute error do best where labels are wrong; the "
    "absolute error is the hardest to train.",
    source="Zhang, Sabuncu 2018, arXiv 1805.07836, for tau = 1.7; Mao, Mohri, Zhong 2023, arXiv 2304.07288, "
    "for the family",
    data="scikit-learn digits; 40 % of the labels to train and to choose by moved to any other class, or "
    "none; tested on right labels",
    protocol="70/10/20 % of the rows train, choose and test, divided anew for each seed; perceptron "
    "64-128-128-10, SGD with momentum 0.9, the rate falling along a cosine, batches of 128, 60 epochs; each "
    "arm chooses among six settings of rate and weight decay by accuracy on the 10 % over three divisions",
    arms={
        f"{tau} {labels}": {"lr": RATES[labels], "weight_decay": DECAYS}
        for tau in TAUS
        for labels in SHARES
        if (tau, labels) not in (("tau_1.5", "clean"), ("tau_2", "noisy"))
    },
    budget=6,
    num_tuning_seeds=3,
    num_seeds=15,
    trial=trial,
    effects=(
        Effect("accuracy at 40 % wrong labels, tau 1.7 - tau 1", _gain("tau_1.7 noisy", "tau_1 noisy")),
        Effect("accuracy at 40 % wrong labels, tau 1.5 - tau 1", _gain("tau_1.5 noisy", "tau_1 noisy")),
        Effect("with right labels, tau 1.7 - tau 1", _gain("tau_1.7 clean", "tau_1 clean"), above=-0.01),
        Effect("with right labels, tau 1 - tau 2", _gain("tau_1 clean", "tau_2 clean")),
    ),
    test_to_train=0.2 / 0.7,
    tried="In the first recorded run, whose row is kept in results.jsonl, the arms with right labels chose "
    "among the rates 0.2 and 0.5 too. At 0.5 cross-entropy diverged on some of the reported seeds, which the "
    "three tuning seeds had not shown, so that the effects with right labels said nothing (interval -0.24 to "
    "0.45). They now choose among 0.1 and 0.2; nothing was changed for the arms with wrong labels, whose "
    "effects were +0.012 [-0.002, 0.027] and +0.009 [-0.001, 0.020] then.",
)  # fmt: skip
