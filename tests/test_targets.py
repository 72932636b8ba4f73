"""Every storage under every layer: all ways of reading it agree, and no way of moving it changes it."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree

import margins
from made_up_targets import (
    LABELS,
    LAYERS,
    STORAGES,
    Written,
    all_made,
    assert_same,
    digest,
    digests,
    drawn,
    filled,
    layers_of,
    made,
    tensors_of,
    written,
)
from margins.errors import MarginsError
from margins.targets import Targets

every_storage = pytest.mark.parametrize("storage", STORAGES)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors of a few numbers: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def entries_in_some_order(targets: Targets) -> tuple[Tensor, Tensor]:
    """Every entry once, and some twice, shuffled."""
    total = targets.num_anchors * targets.num_candidates
    generator = torch.Generator().manual_seed(3)
    order = torch.cat([torch.randperm(total, generator=generator), torch.arange(0, total, 3)])
    return order // targets.num_candidates, order % targets.num_candidates


@every_storage
def test_layers_change_what_the_written_out_targets_say(storage: str) -> None:
    """A guard: were a layer ignored by `written`, every other law here would hold of nothing."""
    plain = written(made(storage))
    for layer in layers_of(storage)[1:]:
        changed = [not torch.equal(a, b) for a, b in zip(plain, written(made(storage, layer)), strict=True)]
        assert any(changed), layer


@every_storage
@pytest.mark.parametrize("cuts", [[3], [2, 2, 4], list(range(1, 5))], ids=["two", "empty", "single columns"])
def test_blocks_of_any_split_join_to_the_whole(storage: str, cuts: list[int]) -> None:
    for targets in all_made(storage):
        edges = [0, *cuts, targets.num_candidates]
        pieces = [written(targets, a, b) for a, b in pairwise(edges)]
        whole = written(targets)
        for name in ("grades", "known", "weight", "margin"):
            joined = torch.cat([getattr(p, name) for p in pieces], 1)
            assert torch.equal(joined, getattr(whole, name)), name


@every_storage
def test_entries_read_one_by_one_equal_the_block(storage: str) -> None:
    for targets in all_made(storage):
        rows, columns = entries_in_some_order(targets)
        whole = written(targets)
        read = Written(
            targets.grades_at(rows, columns),
            filled(targets.known_at(rows, columns), rows.shape, True),
            filled(targets.weight_at(rows, columns), rows.shape, 1.0),
            filled(targets.margin_at(rows, columns), rows.shape, 0.0),
            whole.rows_known,
            whole.row_weight,
        )
        for name in ("grades", "known", "weight", "margin"):
            assert torch.equal(getattr(read, name), getattr(whole, name)[rows, columns]), name


@every_storage
def test_positive_entries_read_one_by_one_equal_the_block(storage: str) -> None:
    for targets in all_made(storage):
        rows, columns = entries_in_some_order(targets)
        if storage == "values":
            with pytest.raises(MarginsError, match="positive candidates"):
                targets.positive_at(rows, columns)
            continue
        block = targets.positive(0, targets.num_candidates)
        assert block.any()
        assert not block.all()
        assert torch.equal(targets.positive_at(rows, columns), block[rows, columns])


@every_storage
def test_listed_positives_are_the_positive_entries_of_the_block(storage: str) -> None:
    for targets in all_made(storage):
        if storage == "values":
            with pytest.raises(MarginsError, match="real values"):
                targets.positives()
            continue
        rows, columns, values = targets.positives()
        assert torch.equal(rows, rows.sort().values)
        # A row without a target may be listed at column 0, so that shapes do not depend on values.
        real = targets.positive_at(rows, columns)
        assert not written(targets).rows_known[rows[~real]].any()
        listed = torch.zeros(targets.shape)
        listed[rows[real], columns[real]] = values[real]
        positive = targets.positive(0, targets.num_candidates)
        assert torch.equal(listed, torch.where(positive, written(targets).grades, 0.0))
        assert int(real.sum()) == int(positive.sum())  # none twice
        if targets.is_sparse:
            assert torch.equal(listed, written(targets).grades)


@every_storage
def test_counts_and_masses_equal_those_of_the_written_out_entries(storage: str) -> None:
    for targets in all_made(storage):
        whole = written(targets)
        assert torch.equal(targets.num_known(), whole.known.sum(1))
        weight = torch.where(whole.known, whole.weight, 0.0)
        torch.testing.assert_close(targets.known_weight(), weight.sum(1))
        torch.testing.assert_close(targets.mass(), (weight * whole.grades).sum(1))
        if storage != "values":
            positive = targets.positive(0, targets.num_candidates)
            assert torch.equal(targets.num_positives(), (whole.known & positive).sum(1))


@every_storage
@pytest.mark.parametrize(
    "rows",
    [
        torch.tensor([4, 1, 1, 0]),
        torch.tensor([], dtype=torch.long),
        torch.tensor([True, False, False, True, True]),
        slice(1, 4),
        slice(None, None, 2),
    ],
    ids=["index", "none", "mask", "slice", "step"],
)
def test_taken_rows_say_what_they_said(storage: str, rows: Tensor | slice) -> None:
    for targets in all_made(storage):
        taken = targets.take(rows)
        for name, a, b in zip(Written._fields, written(taken), written(targets), strict=True):
            assert torch.equal(a, b[rows]), name
        assert torch.equal(taken.num_known(), targets.num_known()[rows])
        torch.testing.assert_close(taken.mass(), targets.mass()[rows])
        if storage != "values":
            assert torch.equal(taken.num_positives(), targets.num_positives()[rows])


@every_storage
def test_rows_taken_of_a_single_row_repeat_it(storage: str) -> None:
    for targets in all_made(storage):
        one = targets.take(torch.tensor([2]))
        repeated = one[torch.tensor([0, 0, 0])]
        for name, a, b in zip(Written._fields, written(repeated), written(one), strict=True):
            assert torch.equal(a, b.expand(a.shape)), name


@every_storage
def test_pieces_put_together_are_the_whole(storage: str) -> None:
    for targets in all_made(storage):
        pieces = [targets[:2], targets[2:2], targets[2:3], targets[3:]]
        joined = Targets.cat(pieces)
        assert_same(joined, targets)
        torch.testing.assert_close(joined.mass(), targets.mass())
        torch.testing.assert_close(joined.known_weight(), targets.known_weight())


@every_storage
def test_plain_and_layered_pieces_keep_their_own_layers(storage: str) -> None:
    plain = made(storage)
    for layered in all_made(storage):
        if plain.smoothing != layered.smoothing:
            with pytest.raises(MarginsError, match="parts"):
                Targets.cat([plain, layered])
            continue
        joined = written(Targets.cat([plain, layered, plain]))
        parts = [written(plain), written(layered), written(plain)]
        for name in Written._fields:
            assert torch.equal(getattr(joined, name), torch.cat([getattr(p, name) for p in parts])), name


@every_storage
def test_copies_equal_the_original_and_share_nothing_written(storage: str) -> None:
    for targets in all_made(storage):
        assert_same(copy.deepcopy(targets), targets)
        assert_same(pickle.loads(pickle.dumps(targets)), targets)  # noqa: S301  (our own bytes)
        assert_same(targets.map_tensors(torch.clone), targets)
        assert_same(targets.to("cpu"), targets)
        cloned = {t.data_ptr() for t in tensors_of(copy.deepcopy(targets)) if t.numel()}
        assert cloned.isdisjoint(t.data_ptr() for t in tensors_of(targets) if t.numel())


@every_storage
def test_a_device_move_reaches_every_tensor(storage: str) -> None:
    for targets in all_made(storage):
        moved = targets.to("meta")
        assert moved.shape == targets.shape
        assert moved.device.type == "meta"
        assert {t.device.type for t in tensors_of(moved)} == {"meta"}
        assert {t.device.type for t in tensors_of(targets)} == {"cpu"}


@every_storage
def test_pinning_reaches_every_tensor(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[Tensor] = []

    def pin(tensor: Tensor) -> Tensor:
        pinned.append(tensor)
        return tensor.clone()

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    for targets in all_made(storage):
        pinned.clear()
        moved = targets.pin_memory()
        assert_same(moved, targets)
        assert [id(t) for t in pinned] == [id(t) for t in tensors_of(targets)]
        assert {id(t) for t in tensors_of(moved)}.isdisjoint(map(id, pinned))


@every_storage
def test_a_pytree_walk_reaches_every_tensor_and_comes_back(storage: str) -> None:
    for targets in all_made(storage):
        leaves, spec = _pytree.tree_flatten(targets)
        assert_same(_pytree.tree_unflatten(leaves, spec), targets)
        inside = tensors_of(targets)
        assert sorted(id(leaf) for leaf in leaves if isinstance(leaf, Tensor)) == sorted(map(id, inside))
        doubled = _pytree.tree_map_only(Tensor, lambda t: t if t.dtype == torch.bool else t * 2, targets)
        assert isinstance(doubled, Targets)
        for before, after in zip(inside, tensors_of(doubled), strict=True):
            assert torch.equal(after, before if before.dtype == torch.bool else before * 2)


def test_a_spawned_worker_reads_what_was_sent() -> None:
    batch = {f"{s}-{k}": made(s, k) for s in STORAGES for k in layers_of(s)}
    context = torch.multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        read = pool.apply_async(digests, (batch,)).get(timeout=300)
    assert len(read) > 150
    assert read == {name: digest(targets) for name, targets in batch.items()}


@every_storage
def test_fields_cannot_be_set(storage: str) -> None:
    for targets in all_made(storage):
        for record in (targets, targets.storage, targets.margins):
            for field in fields(record):
                with pytest.raises(FrozenInstanceError):
                    setattr(record, field.name, None)


@every_storage
def test_no_reading_or_transformation_writes_into_a_tensor(storage: str) -> None:
    for targets in all_made(storage):
        inside = tensors_of(targets)
        before = [(t._version, t.clone()) for t in inside]
        snapshot = [part.clone() for part in written(targets)]
        for name, change in LAYERS.items():
            if name in layers_of(storage):
                written(change(targets))
        written(targets.mix(targets[torch.arange(len(targets)).flip(0)], 0.4))
        written(targets.append(made("matches_in_batch")))
        written(Targets.cat([targets, targets]))
        targets.mass(), targets.known_weight(), targets.num_known()
        for tensor, (version, values) in zip(inside, before, strict=True):
            assert tensor._version == version
            assert torch.equal(tensor, values)
        for part, kept in zip(written(targets), snapshot, strict=True):
            assert torch.equal(part, kept)


def test_constructors_leave_the_callers_tensors_alone() -> None:
    labels, grades, offsets, columns = (
        LABELS.clone(),
        drawn(5, 7),
        torch.tensor([0, 1, 3]),
        torch.tensor([4, 2, 0]),
    )
    given = [labels, grades, offsets, columns]
    before = [t.clone() for t in given]
    written(Targets.of_classes(labels, 7).smooth(0.1).weigh_classes(drawn(7)))
    written(Targets.of_scores(grades).ignore(rows=labels == 2))
    written(Targets.of_label_sets((offsets, columns), 7).smooth(0.1))
    written(Targets.of_matches(labels).mix(Targets.of_matches(labels.flip(0)), 0.5))
    assert all(t._version == 0 for t in given)
    assert all(torch.equal(t, b) for t, b in zip(given, before, strict=True))


@every_storage
def test_an_empty_block_has_no_columns(storage: str) -> None:
    for layer in ("plain", "entry_weights"):
        block = made(storage, layer).block(2, 2)
        assert block.grades.shape == (len(made(storage)), 0)


def test_repr_names_shape_storage_and_layers() -> None:
    shown = repr(made("classes", "every_layer"))
    for word in (
        "5 x 7",
        "ClassIndex",
        "row_weight",
        "unknown",
        "entry_weight",
        "margin on negatives",
        "0.2",
    ):
        assert word in shown


COMPILED = """
import sys, torch
from margins.losses import BinaryCrossEntropy, CompSum, CrossEntropy, Focal
backend = sys.argv[1]
generator = torch.Generator().manual_seed(0)
for loss in (CrossEntropy(), Focal(2.0), CompSum(1.7), CompSum(1.0), BinaryCrossEntropy()):
    for labels in (torch.tensor([0, 3, 1, 4]), torch.tensor([0, -100, 1, 4])):
        plain = torch.randn(4, 5, generator=generator).requires_grad_()
        fused = plain.detach().clone().requires_grad_()
        torch._dynamo.reset()
        compiled = torch.compile(loss.per_anchor, fullgraph=True, backend=backend)
        upstream = torch.tensor([1.0, -2.0, 0.5, 3.0])
        eager, value = loss.per_anchor(plain, labels), compiled(fused, labels)
        (eager * upstream).sum().backward()
        (value * upstream).sum().backward()
        assert eager.abs().sum() > 0 and plain.grad.abs().sum() > 0
        torch.testing.assert_close(value, eager)
        torch.testing.assert_close(fused.grad, plain.grad)
        print(type(loss).__name__, "equal")
"""


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_the_loss_of_class_ids_compiles_as_one_graph_and_equals_eager(backend: str, tmp_path: Path) -> None:
    """In a process of its own: the checker of signatures in tests is not for a compiler to follow."""
    source = str(Path(margins.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, backend],
        env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("equal") == 10
