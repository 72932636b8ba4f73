"""What `margins inductive-bias` and the profile say of rows that are numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from margins.cli.main import run
from margins.compare.needed_information import needed_information
from margins.compare.numeric_rows import nearness, numeric_rows, standardised
from margins.compare.profile import profile
from margins.data.reading import read_frame
from margins.errors import MarginsError

SMALL = {"num_rows": 12, "num_hypotheses": 10}


def _frame(num: int = 150, **more: Any) -> Any:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num, 2))
    return read_frame({"a": x[:, 0], "b": 100 * x[:, 1], "label": ["no", "yes"] * (num // 2), **more})


def _signs(num: int = 150) -> Any:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(num, 2))
    return read_frame({"a": x[:, 0], "b": x[:, 1], "label": np.where(x.sum(1) > 0, "yes", "no").tolist()})


def test_a_task_of_chance_takes_more_than_one_with_a_rule():
    options = {"space": "mlp", "target_error": 0.1, "num_rows": 12, "num_hypotheses": 10}
    rule, chance = (needed_information(frame, **options) for frame in (_signs(), _frame()))
    assert rule.bias.information < chance.bias.information
    assert rule.constant_error == pytest.approx(0.25, abs=0.05)
    assert (rule.num_train, rule.num_test, rule.num_unfitted) == (12, 44, 0)
    assert rule.sentences[-1].startswith("A constant prediction has an error of 0.2")


def test_a_kernel_has_an_exact_law_too_and_a_smaller_error_takes_more():
    bits = [
        needed_information(_signs(), space="rbf", target_error=error, num_rows=16, num_hypotheses=60)
        for error in (0.3, 0.15)
    ]
    exact = [found.exact for found in bits]
    assert None not in exact
    assert bits[0].bias.information < bits[1].bias.information
    assert exact[0] < exact[1]
    nats = needed_information(
        _signs(), space="rbf", target_error=0.15, num_rows=16, num_hypotheses=60, unit="nats"
    )
    assert nats.exact == pytest.approx(exact[1] * np.log(2))


def test_numbers_to_be_predicted_are_in_deviations():
    frame = read_frame({"a": np.arange(60.0), "price": 1000 + 7 * np.arange(60.0)})
    from margins.training.request import Roles

    roles = Roles(target="price", target_kind="value")
    found = needed_information(frame, roles, space="mlp", target_error=0.1, **SMALL)
    assert found.constant_error == pytest.approx(1.0, abs=0.5)
    assert found.bias.smallest_error < 0.2


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"space": "cnn"}, "one column of images"),
        ({"space": "svm"}, "space"),
        ({"space": "rbf", "num_hypotheses": 3}, "10 hypotheses"),
        ({"space": "rbf", "target_error": 0.0}, "target_error"),
        ({"space": "rbf", "unit": "bytes"}, "unit"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(options, named):
    with pytest.raises(MarginsError, match=named):
        needed_information(_frame(), **{"target_error": 0.1, **SMALL, **options})


def test_texts_are_refused():
    frame = read_frame({"text": ["good film", "bad film"] * 20, "label": ["p", "n"] * 20})
    with pytest.raises(MarginsError, match="numbers, vectors or one column of images"):
        needed_information(frame, space="rbf", target_error=0.1)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    rows = [f"{a:.4f},{b:.4f},{'yes' if a + b > 0 else 'no'}" for a, b in rng.normal(size=(120, 2))]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,label", *rows]) + "\n")

    def called(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["margins", *arguments])
        with pytest.raises(SystemExit) as stopped:
            run()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return called


def test_the_command_tells_bits_interval_and_what_to_mind(command):
    asked = ("inductive-bias", "t.csv", "--space", "rbf", "--target-error", "0.01", "--rows", "20")
    code, out, err = command(*asked, "--trials", "40")
    assert code == 0
    assert out.startswith("rbf: ")
    assert " bits to an error of 0.01, 95% interval " in out
    assert "by the exact law of this space" in out
    assert "warning: extrapolation: none of 40" in out
    assert "40 hypotheses (rbf) that fit 20 rows" in err
    code, out, _ = command(*asked, "--trials", "40", "--json", "--unit", "nats")
    found = json.loads(out)
    assert code == 0
    assert found["bias"]["unit"] == "nats"
    assert found["bias"]["low"] <= found["bias"]["information"] <= found["bias"]["high"]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (("--space", "svm"), "space: expected one of rbf, mlp, cnn, got 'svm'"),
        (("--target-error", "-1"), "target_error"),
        (("--input", "c"), "'c'"),
        (("--unit", "bytes"), "unit"),
    ],
)
def test_bad_options_end_in_one_line(command, changed, named):
    options = {"--space": "rbf", "--target-error": "0.1", "--trials": "20", **dict([changed])}
    code, out, err = command("inductive-bias", "t.csv", *[part for pair in options.items() for part in pair])
    assert (code, out) == (2, "")
    assert named in err.splitlines()[-1]


def test_numeric_rows_are_numbers_and_vectors_alone():
    frame = _frame(4, vector=[[1.0, 2.0]] * 4, gap=[1.0, None, 3.0, 5.0])
    rows = numeric_rows(frame, {"a": "numeric", "vector": "embedding", "gap": "numeric"})
    assert rows.shape == (4, 4)
    assert rows[1, 3].isnan()
    assert numeric_rows(frame, {"a": "numeric", "label": "categorical"}) is None
    scaled = standardised(rows, torch.arange(4))
    assert scaled[1, 3] == 0.0  # the mean
    assert float(scaled[[0, 2, 3], 3].std(correction=0)) == pytest.approx(1.0)
    assert bool((scaled[:, 1:3] == 0).all())  # constant columns


def test_a_profile_of_numbers_tells_their_dimension_and_how_close_classes_lie():
    found = profile(_signs(300))
    assert found.intrinsic_dimension == pytest.approx(2, rel=0.15)
    assert found.label_sharpness > 10
    assert found.sentences[-2].startswith("Intrinsic dimension ")
    assert found.sentences[-1].startswith("Label sharpness ")
    json.dumps([found.intrinsic_dimension, found.label_sharpness], allow_nan=False)


def test_a_profile_of_a_line_in_many_columns_finds_one_dimension():
    along = np.random.default_rng(3).normal(size=400)
    columns = {f"c{k}": (k + 1) * along for k in range(6)}
    found = profile(read_frame({**columns, "label": ["a", "b"] * 200}))
    assert found.intrinsic_dimension == pytest.approx(1, abs=0.1)


def test_a_profile_without_numbers_or_with_few_rows_tells_neither():
    texts = profile(read_frame({"text": ["good film"] * 9 + ["bad film"], "label": ["p"] * 9 + ["n"]}))
    assert (texts.intrinsic_dimension, texts.label_sharpness) == (None, None)
    few = nearness(torch.rand(20, 2), None)
    assert (few.intrinsic_dimension, few.label_sharpness, few.sentences) == (None, None, [])
    alike = nearness(torch.ones(200, 2), torch.arange(200) % 2)
    assert (alike.intrinsic_dimension, alike.label_sharpness) == (None, None)


def test_a_profile_looks_at_the_same_rows_each_time():
    rows, labels = torch.rand(3000, 3, generator=torch.Generator().manual_seed(0)), torch.arange(3000) % 2
    assert nearness(rows, labels) == nearness(rows, labels)
    assert "1000 rows looked at" in nearness(rows, labels).sentences[0]
