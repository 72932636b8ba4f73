"""Classes that are grades or levels: their order is said, numbers follow it, models keep it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import margins
from margins.data import Frame, read_frame
from margins.data.class_coding import ClassCoding
from margins.data.fitting_codings import coding_from_data, fit_coding, numbered_by
from margins.errors import MarginsError

GRADES = ["low", "middle", "high"]
# The order by frequency is high, middle, low.
CELLS = ["high"] * 60 + ["middle"] * 50 + ["low"] * 40


def _table() -> dict[str, list[object]]:
    draws = np.random.default_rng(0)
    level = np.array([GRADES.index(name) for name in CELLS])
    x = level + 0.2 * draws.normal(size=len(level))
    return {"x": x.tolist(), "z": draws.normal(size=len(level)).tolist(), "grade": list(CELLS)}


def test_classes_in_an_order_are_numbered_by_it_and_stay_so() -> None:
    cells = pl.Series("grade", CELLS)
    coding = fit_coding(cells, "label", class_order=GRADES)
    assert coding.names == tuple(GRADES)
    assert fit_coding(cells, "label").names == ("high", "middle", "low"), "vacuous: the same without an order"
    assert numbered_by(coding, coding.targets(cells)).names == tuple(GRADES)
    assert coding_from_data(coding.to_data()) == coding
    assert isinstance(coding, ClassCoding)
    assert coding.is_ordered
    assert not fit_coding(cells, "label").is_ordered


@pytest.mark.parametrize("order", [["low", "high"], [*GRADES, "top"], [*GRADES, "low"], []])
def test_an_order_names_every_class_once(order: list[str]) -> None:
    with pytest.raises(MarginsError, match="each class of the target once"):
        fit_coding(pl.Series("grade", CELLS), "label", class_order=order)


def test_an_order_of_what_is_no_class_is_refused() -> None:
    table = {"x": [1.0, 2.0] * 30, "y": [0.5, 1.5] * 30}
    with pytest.raises(MarginsError, match="class_order"):
        margins.train(table, target="y", target_kind="value", class_order=["0.5", "1.5"])


@pytest.mark.parametrize("changes", [{"head": {"name": "nested"}}, {"objective": {"loss": "cumulative"}}])
def test_what_reads_an_order_is_refused_without_one(changes: dict[str, object]) -> None:
    with pytest.raises(MarginsError, match=r"an order of the classes.*class_order"):
        margins.train(_table(), target="grade", inputs=["x", "z"], recipe={**changes, "max_epochs": 1})


def test_a_nested_head_learns_grades_whose_order_is_said_and_keeps_them(tmp_path: Path) -> None:
    table = _table()
    trained = margins.train(
        table, target="grade", inputs=["x", "z"], class_order=GRADES, device="cpu", out=tmp_path / "run",
        recipe={"head": {"name": "nested"}, "objective": {"loss": "cumulative"}, "max_epochs": 25,
                "patience": None},
    )  # fmt: skip
    assert trained.model.coding.names == tuple(GRADES)
    assert trained.scores["report"]["macro_f1"] > 0.9
    again = margins.load(tmp_path / "run")
    assert list(again.predict({"x": [-0.2, 1.0, 2.3], "z": [0.0] * 3})) == GRADES
    position = again.network.head.position(again.network.encoder(again.preparation(_inputs_of(table))))
    assert torch.corrcoef(torch.stack([position.detach(), torch.tensor(table["x"])]))[0, 1] > 0.9


def _inputs_of(table: dict[str, list[object]]) -> Frame:
    return read_frame({name: table[name] for name in ("x", "z")})
