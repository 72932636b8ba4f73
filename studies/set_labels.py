"""An encoder of digits from labels of sets, for digits that these labels tell apart and for all ten."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ground import Rows, digits, fit, perceptron
from margins.encoders import MeanSetPool, linear
from margins.evidence import Effect, Study
from margins.labels import SetDataset
from margins.losses import CrossEntropy
from margins.pretrain import SetLabelPretrain, coarse_separation

NUM_SETS, SET_SIZE, EPOCHS = 1500, 6, 30
KEYS = range(5, 10)


def trial(arm: str, settings: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Few-shot accuracies over the frozen encoder: the five keys from one each, all ten from five each."""
    rows = digits(seed)
    data, classes = _sets(rows.train, seed)
    encoder = nn.Identity() if arm == "pixels" else perceptron([64, 128, 64], seed)
    if arm == "copied":
        classifier = nn.Sequential(encoder, linear(64, 5, generator=torch.Generator().manual_seed(seed)))
        fit(
            classifier, CrossEntropy(), data.items, data.copied_labels(), seed=seed, lr=settings["lr"],
            epochs=EPOCHS, batch_size=64 * SET_SIZE, optimizer="adam",
        )  # fmt: skip
    elif arm in ("set", "mixed"):
        _pretrain(encoder, data, settings, seed)
    found: dict[str, float] = {}
    for role, part in (("select", rows.select), ("test", rows.test)):
        states = Rows(_states(encoder, part.x), part.y)
        found[f"{role}_keys"] = _few_shot(states, KEYS, shots=1, episodes=60, seed=seed)
        found[f"{role}_all"] = _few_shot(states, range(10), shots=5, episodes=15, seed=seed)
    separated = [found.is_separated for found in coarse_separation(data, classes)]
    return {
        "select": (found["select_keys"] + found["select_all"]) / 2,
        "keys": found["test_keys"], "all": found["test_all"],
        "told": float(separated == [False] * 5 + [True] * 5),
    }  # fmt: skip


def _sets(rows: Rows, seed: int) -> tuple[SetDataset, Tensor]:
    """Sets with one digit of 5 to 9, their label, and five of 0 to 4; and the digit of each item."""
    draws = torch.Generator().manual_seed(seed)
    keys, others = (torch.nonzero(rows.y >= 5)[:, 0], torch.nonzero(rows.y < 5)[:, 0])
    chosen = torch.cat([
        keys[torch.randint(len(keys), (NUM_SETS, 1), generator=draws)],
        others[torch.randint(len(others), (NUM_SETS, SET_SIZE - 1), generator=draws)],
    ], dim=1)  # fmt: skip
    labels = rows.y[chosen[:, 0]] - 5
    index = torch.arange(NUM_SETS).repeat_interleave(SET_SIZE)
    return SetDataset(rows.x[chosen.flatten()], index, labels), rows.y[chosen.flatten()]


def _pretrain(encoder: nn.Module, data: SetDataset, settings: Mapping[str, Any], seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    weight = settings.get("reconstruction", 0.0)
    net = SetLabelPretrain(
        encoder, MeanSetPool(64), num_labels=5, reconstruction=weight,
        decoder=linear(64, 64, generator=draws) if weight else None, generator=draws,
    )  # fmt: skip
    net.fit(data, epochs=EPOCHS, lr=settings["lr"], generator=draws)


@torch.no_grad()
def _states(encoder: nn.Module, x: Tensor) -> Tensor:
    return encoder(x)


def _few_shot(rows: Rows, classes: range, *, shots: int, episodes: int, seed: int) -> float:
    """The accuracy of logistic regression on a few labels of each class, over many choices of them."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    draws = torch.Generator().manual_seed(seed)
    members = [torch.nonzero(rows.y == c)[:, 0] for c in classes]
    total = 0.0
    for _ in range(episodes):
        mixed = [m[torch.randperm(len(m), generator=draws)] for m in members]
        shown, asked = torch.cat([m[:shots] for m in mixed]), torch.cat([m[shots:] for m in mixed])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(max_iter=300).fit(rows.x[shown].numpy(), rows.y[shown].numpy())
        total += float(model.score(rows.x[asked].numpy(), rows.y[asked].numpy()))
    return total / episodes


def _gap(first: str, second: str, figure: str) -> Callable[[Mapping[str, Mapping[str, float]]], float]:
    return lambda f: f[first][figure] - f[second][figure]


RATES = (0.001, 0.003, 0.01)

STUDY = Study(
    name="set_labels",
    cards=(
        "margins.pretrain.SetLabelPretrain",
        "margins.encoders.MeanSetPool",
        "margins.pretrain.coarse_separation",
    ),
    claim="An encoder of items pretrained on labels of sets is better for few-shot tasks than others, that "
    "taught each item's set label among them. A warning beside it: what set labels do not separate is lost.",
    source="Zhang et al. 2024, arXiv 2311.05659; +13 % on histopathology",
    data=f"scikit-learn digits: {NUM_SETS} sets of one digit of 5 to 9, the label, and five of 0 to 4",
    protocol="perceptron 64-128-64, mean pooling, 30 epochs of AdamW, then logistic regression on the frozen "
    "states of other digits: the keys 5 to 9 from one example each, all ten digits from five each; learning "
    "rate and weight of the reconstruction by both on rows kept for that",
    arms={
        "pixels": {},
        "untrained": {},
        "copied": {"lr": RATES},
        "set": {"lr": RATES},
        "mixed": {"lr": (0.003,), "reconstruction": (3.0, 10.0, 30.0)},
    },
    budget=3,
    trial=trial,
    effects=(
        Effect("1-shot accuracy on keys, set - untrained", _gap("set", "untrained", "keys"), reaches=0.2),
        Effect("1-shot accuracy on keys, not worse than copied", _gap("set", "copied", "keys"), above=-0.005),
        Effect("1-shot accuracy on keys, set - copied", _gap("set", "copied", "keys")),
        Effect("5-shot accuracy on all ten, pixels - set: what is lost", _gap("pixels", "set", "all")),
        Effect("5-shot accuracy on all ten, untrained - set", _gap("untrained", "set", "all")),
        Effect("5-shot accuracy on all ten, mixed - set: what is kept", _gap("mixed", "set", "all")),
        Effect("1-shot accuracy on keys, mixed - set", _gap("mixed", "set", "keys"), above=-0.02),
        Effect("coarse_separation names the digits 0 to 4 alone", lambda f: f["set"]["told"], above=0.99),
    ),
    num_seeds=7,
    num_tuning_seeds=1,
    test_to_train=0.8,
)
