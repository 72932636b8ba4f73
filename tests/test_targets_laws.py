"""Laws of the constructors and transformations of targets, each against entries computed one by one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from made_up_targets import (
    LABELS,
    SHARES,
    STORAGES,
    B,
    C,
    Written,
    all_made,
    animals,
    assert_same,
    drawn,
    made,
    written,
)
from margins.losses import CrossEntropy, SquaredError
from margins.targets import Targets
from margins.taxonomy import Taxonomy

GRADED = [s for s in STORAGES if s != "values"]
OF_ONE_SHAPE = [s for s in STORAGES if made(s).shape == (B, C)]
graded_storage = pytest.mark.parametrize("storage", GRADED)
mixable_storage = pytest.mark.parametrize("storage", OF_ONE_SHAPE)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors of a few numbers: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same_loss(first: Targets, second: Targets) -> None:
    """A loss does not tell the two apart, in value, gradient and number of rows that count."""
    loss = CrossEntropy() if first.storage.has_positives else SquaredError()
    results: list[tuple[Tensor, ...]] = []
    for targets in (first, second):
        scores = drawn(*targets.shape, seed=30).double().requires_grad_()
        rows = loss.rows(scores, targets)
        rows.weighted().sum().backward()
        assert scores.grad is not None
        results.append((rows.weighted(), scores.grad, rows.denominator("mean")))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------------- mixing


@mixable_storage
def test_a_mixture_is_the_shares_times_the_parts(storage: str) -> None:
    other = made("dense").margin(rows=drawn(B, seed=31)).weigh(candidates=drawn(C, seed=32) + 0.1)
    for targets in all_made(storage):
        mixed = written(targets.mix(other, SHARES))
        share = SHARES[:, None]
        for name in ("grades", "weight", "margin"):
            a, b = getattr(written(targets), name), getattr(written(other), name)
            torch.testing.assert_close(getattr(mixed, name), share * a + (1 - share) * b)
        inside = ((share > 0) & (share < 1)).expand(B, C)
        both = written(targets).known & written(other).known
        assert torch.equal(mixed.known[inside], both[inside])


@mixable_storage
def test_a_mixture_keeps_its_parts_and_their_shares(storage: str) -> None:
    first, second = made(storage), made("dense")
    (kept, share), (other, rest) = first.mix(second, 0.3).parts
    for name in set(Written._fields) - {"row_weight", "rows_known"}:  # weights of rows belong to the mixture
        assert torch.equal(getattr(written(kept), name), getattr(written(first), name)), name
    assert_same(other, second)
    torch.testing.assert_close(share, torch.full((B, 1), 0.3))
    torch.testing.assert_close(rest, torch.full((B, 1), 0.7))
    ((alone, whole),) = second.parts
    assert alone is second
    assert torch.equal(whole, torch.ones(B, 1))


@mixable_storage
@pytest.mark.parametrize("kind", ["number", "tensor"])
def test_a_mixture_with_share_one_is_the_first_part(storage: str, kind: str) -> None:
    share = 1.0 if kind == "number" else torch.ones(B)
    for targets in all_made(storage):
        assert_same(targets.mix(made("dense"), share), targets)
        assert_same(made("dense").mix(targets, share), made("dense"))


@mixable_storage
def test_mixing_is_symmetric_when_the_share_is_swapped(storage: str) -> None:
    other = made("matches").weigh(rows=drawn(B, seed=33) + 0.5).margin(candidates=drawn(C, seed=34))
    for targets in all_made(storage):
        one, two = targets.mix(other, SHARES), other.mix(targets, 1 - SHARES)
        for a, b in zip(written(one), written(two), strict=True):
            torch.testing.assert_close(a, b)
        if storage != "values":
            assert torch.equal(one.positive(0, C), two.positive(0, C))
            for a, b in zip(one.positives(), two.positives(), strict=True):
                torch.testing.assert_close(a, b)


def test_a_row_ignored_in_a_part_is_ignored_in_the_mixture_however_it_was_ignored() -> None:
    by_label = Targets.of_classes(torch.tensor([-100, 1, 2]), 3)
    by_mask = Targets.of_classes(torch.tensor([0, 1, 2]), 3).ignore(rows=torch.tensor([True, False, False]))
    other = Targets.of_classes(torch.tensor([1, 2, 0]), 3)
    for share in (0.5, torch.tensor([0.2, 0.4, 0.6])):
        expected = by_label.mix(other, share).known_rows()
        assert expected is not None
        assert expected.tolist() == [False, True, True]
        known = by_mask.mix(other, share).known_rows()
        assert known is not None
        assert torch.equal(known, expected)


def test_row_weights_mix_like_grades() -> None:
    first, second = made("classes").weigh(rows=torch.arange(1.0, B + 1)), made("dense")
    weights = first.mix(second, SHARES).row_weight
    assert weights is not None
    torch.testing.assert_close(weights, SHARES * torch.arange(1.0, B + 1) + (1 - SHARES))


# ------------------------------------------------------------------------------------------- smoothing


@graded_storage
def test_smoothing_spreads_a_share_over_the_known_entries(storage: str) -> None:
    for targets in all_made(storage):
        before, after = written(targets), written(targets.smooth(0.3))
        spread = 0.3 / before.known.sum(1, keepdim=True).clamp(min=1)
        torch.testing.assert_close(after.grades, 0.7 * before.grades + spread.expand_as(after.grades))
        for name in set(Written._fields) - {"grades", "margin"}:
            assert torch.equal(getattr(after, name), getattr(before, name)), name
        assert torch.equal(targets.smooth(0.3).positive(0, C), targets.positive(0, C))


@graded_storage
def test_smoothing_composes_and_zero_changes_nothing(storage: str) -> None:
    for targets in all_made(storage):
        twice, once = targets.smooth(0.2).smooth(0.5), targets.smooth(1 - 0.8 * 0.5)
        torch.testing.assert_close(written(twice).grades, written(once).grades)
        assert_same(targets.smooth(0.0), targets)


# -------------------------------------------------------------------- weights, ignored entries, margins


@pytest.mark.parametrize("storage", STORAGES)
def test_weight_zero_equals_ignoring(storage: str) -> None:
    targets = made(storage)
    width = targets.num_candidates
    masks = {
        "rows": drawn(B, seed=35) > 0.5,
        "candidates": drawn(width, seed=36) > 0.5,
        "entries": drawn(B, width, seed=37) > 0.5,
    }
    for axis, mask in masks.items():
        assert mask.any()
        ignored, weighed = targets.ignore(**{axis: mask}), targets.weigh(**{axis: (~mask).float()})
        assert not torch.equal(written(ignored).known.float(), torch.ones(B, width)) or axis == "rows"
        for name in ("grades", "known", "rows_known"):
            assert torch.equal(getattr(written(ignored), name), getattr(written(weighed), name)), name
        for read in ("num_known", "known_weight", "mass"):
            torch.testing.assert_close(getattr(ignored, read)(), getattr(weighed, read)())
        same_loss(ignored, weighed)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_second_weight_multiplies_and_a_second_margin_adds(storage: str) -> None:
    targets = made(storage)
    by_column, by_row, w = drawn(targets.num_candidates, seed=38), drawn(B, seed=39), written(targets)
    weighed = written(targets.weigh(candidates=by_column).weigh(rows=by_row).weigh(candidates=by_column))
    torch.testing.assert_close(weighed.weight, w.weight * by_column.square())
    torch.testing.assert_close(weighed.row_weight, w.row_weight * by_row)
    margins = written(targets.margin(candidates=by_column).margin(rows=by_row)).margin
    torch.testing.assert_close(margins, w.margin + by_column[None, :] + by_row[:, None])


@graded_storage
def test_a_margin_falls_on_the_entries_of_its_domain(storage: str) -> None:
    for targets in all_made(storage):
        before = written(targets).margin
        positive = targets.positive(0, targets.num_candidates)
        rows = drawn(B, seed=40)[:, None].expand_as(before)
        domains = {"all": torch.ones_like(positive), "positives": positive, "negatives": ~positive}
        for domain, mask in domains.items():
            after = written(targets.margin(rows=rows[:, 0], on=domain)).margin
            torch.testing.assert_close(after, before + torch.where(mask, rows, 0.0))


@graded_storage
def test_a_margin_is_a_shift_of_the_scores(storage: str) -> None:
    targets, scores = made(storage), drawn(*made(storage).shape, seed=41).double()
    margin = drawn(*targets.shape, seed=42).double()
    shifted = CrossEntropy().per_anchor(scores - margin, targets)
    torch.testing.assert_close(CrossEntropy().per_anchor(scores, targets.margin(entries=margin)), shifted)
    assert not torch.allclose(CrossEntropy().per_anchor(scores, targets), shifted)


@graded_storage
def test_ignored_candidates_are_as_good_as_absent(storage: str) -> None:
    targets = made(storage)
    grades = written(targets).grades
    gone = torch.arange(targets.num_candidates) % 3 == 1
    scores = drawn(*targets.shape, seed=43).double()
    known = written(targets.ignore(candidates=gone))
    here = CrossEntropy().per_anchor(scores, targets.ignore(candidates=gone))
    kept = Targets.of_scores(grades[:, ~gone]).weigh(entries=known.weight[:, ~gone] * known.known[:, ~gone])
    kept = kept.margin(entries=known.margin[:, ~gone]).weigh(rows=known.row_weight * known.rows_known)
    torch.testing.assert_close(CrossEntropy().per_anchor(scores[:, ~gone], kept), here)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_class_weights_are_those_of_torch(dtype: torch.dtype) -> None:
    scores, weight = drawn(B, C, seed=44).to(dtype), (drawn(C, seed=45) + 0.1).to(dtype)
    labels = torch.tensor([2, -100, 6, 2, 5])
    targets = Targets.of_classes(labels, C).weigh_classes(weight)
    torch.testing.assert_close(
        CrossEntropy(reduction="weighted_mean")(scores, targets),
        functional.cross_entropy(scores, labels, weight=weight),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_class_weight_of_a_soft_row_is_the_mean_over_its_grades(dtype: torch.dtype) -> None:
    grades, weight = (
        torch.tensor([[0.5, 1.5, 0.0], [0.0, 0.0, 0.0]], dtype=dtype),
        torch.tensor([2.0, 4.0, 8.0]),
    )
    found = Targets.of_scores(grades).weigh_classes(weight.to(dtype)).row_weight
    assert found is not None
    assert found.tolist() == [3.5, 1.0]  # a row without a class weighs what it weighed


# ------------------------------------------------------------------------------------------- appending


@pytest.mark.parametrize("second", ["label_sets", "matches_in_batch"])
@pytest.mark.parametrize("first", STORAGES)
def test_appended_columns_stand_after_ones_own(first: str, second: str) -> None:
    for targets in all_made(first):
        more = made(second).weigh(candidates=drawn(made(second).num_candidates, seed=46))
        joined, pieces = written(targets.append(more)), (written(targets), written(more))
        for name in ("grades", "known", "weight", "margin"):
            assert torch.equal(getattr(joined, name), torch.cat([getattr(p, name) for p in pieces], 1)), name
        assert torch.equal(joined.row_weight, pieces[0].row_weight)
        assert torch.equal(joined.rows_known, pieces[0].rows_known & pieces[1].rows_known)


def test_nothing_to_append_changes_nothing() -> None:
    for nothing in (Targets.of_scores(torch.zeros(B, 0)), Targets.of_values(torch.zeros(B, 0))):
        for storage in ("classes", "dense", "appended_layered"):
            joined = made(storage).append(nothing)
            assert_same(joined, made(storage))
            rows, columns = torch.tensor([0, 3]), torch.tensor([2, 6])
            assert torch.equal(joined.grades_at(rows, columns), made(storage).grades_at(rows, columns))


# ---------------------------------------------------------------------------------------- constructors


def test_class_ids_are_one_positive_a_row() -> None:
    assert torch.equal(written(made("classes")).grades, functional.one_hot(LABELS, C).float())
    ignoring = written(made("classes_ignoring"))
    assert ignoring.rows_known.tolist() == [False, True, True, False, True]
    assert ignoring.grades.sum(1).tolist() == [0, 1, 1, 0, 1]


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_narrow_integer_labels_mean_the_same_as_wide_ones(dtype: torch.dtype) -> None:
    narrow, wide = LABELS.to(dtype), LABELS
    candidates = torch.arange(300) % 7
    assert_same(Targets.of_classes(narrow, C), Targets.of_classes(wide, C))
    for pair in ((narrow, candidates), (wide, candidates.to(dtype))):
        found, expected = Targets.of_matches(*pair), Targets.of_matches(wide, candidates)
        assert_same(found, expected)
        assert torch.equal(found.num_positives(), expected.num_positives())
        assert torch.equal(found.num_known(), expected.num_known())
    same = Targets.of_matches(wide, candidates, same_items=narrow)
    assert torch.equal(
        same.num_positives(), Targets.of_matches(wide, candidates, same_items=wide).num_positives()
    )
    assert_same(Targets.of_taxonomy(narrow, animals()), Targets.of_taxonomy(wide, animals()))


def test_label_sets_in_any_order_and_either_form_are_the_same() -> None:
    listed = [[6, 0], [], [3], [4, 1, 2], [0]]
    offsets = torch.tensor([0, 2, 2, 3, 6, 7])
    columns = torch.tensor([0, 6, 3, 1, 2, 4, 0])
    grades = torch.zeros(B, C)
    for row, labels in enumerate(listed):
        grades[row, labels] = 1
    for targets in (Targets.of_label_sets(listed, C), Targets.of_label_sets((offsets, columns), C)):
        assert torch.equal(written(targets).grades, grades)
        assert torch.equal(targets.positives().columns, columns)


@pytest.mark.parametrize("seed", range(5))
def test_matches_count_equal_labels_without_the_item_itself(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    anchors = torch.randint(-2, 4, (6,), generator=generator)
    candidates = torch.randint(-2, 4, (9,), generator=generator)
    same = torch.randint(-1, 9, (6,), generator=generator)
    targets = Targets.of_matches(anchors, candidates, same_items=same)
    for i, j in itertools.product(range(6), range(9)):
        assert bool(targets.positive(j, j + 1)[i]) == (int(anchors[i]) == int(candidates[j]))
        assert bool(written(targets).known[i, j]) == (int(same[i]) != j)
    positives = [sum(int(a) == int(c) and j != int(s) for j, c in enumerate(candidates))
                 for a, s in zip(anchors, same, strict=True)]  # fmt: skip
    assert targets.num_positives().tolist() == positives
    assert targets.num_known().tolist() == [9 - (int(s) >= 0) for s in same]
    assert any(positives)


def test_a_batch_matched_with_itself_knows_all_but_the_diagonal() -> None:
    targets = Targets.of_matches(torch.tensor([3, 1, 3]))
    assert torch.equal(written(targets).known, ~torch.eye(3, dtype=torch.bool))
    assert targets.num_positives().tolist() == [1, 0, 1]


def test_paired_items_with_the_anchors_own_id_are_unknown_but_its_partner_is_not() -> None:
    ids = torch.tensor([4, 1, 4, 3, 2, 1, 9])
    targets = Targets.of_pairs(5, extra=2, item_ids=ids)
    for i, j in itertools.product(range(5), range(7)):
        assert bool(written(targets).known[i, j]) == (i == j or int(ids[i]) != int(ids[j]))
        assert float(written(targets).grades[i, j]) == (i == j)
    assert targets.num_known().tolist() == [6, 6, 6, 7, 7]
    without = Targets.of_pairs(5, extra=2)
    assert without.num_known().tolist() == [7] * 5
    assert torch.equal(written(without).grades, torch.eye(5, 7))


def random_taxonomy(seed: int) -> Taxonomy:
    """Ten labels, each with up to two parents among the earlier ones."""
    generator = torch.Generator().manual_seed(seed)
    edges: list[tuple[str, str]] = []
    for child in range(2, 10):
        parents = torch.randperm(child, generator=generator)[
            : int(torch.randint(1, 3, (), generator=generator))
        ]
        edges += [(str(int(p)), str(child)) for p in parents]
    return Taxonomy.from_edges(edges)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("decay", "radius"), [(0.5, 2), (0.9, 0), (1.0, 3), (0.3, 50)])
def test_nodes_are_graded_by_their_distance_in_the_taxonomy(seed: int, decay: float, radius: int) -> None:
    graph = random_taxonomy(seed)
    labels = torch.arange(graph.num_nodes).flip(0)
    found = written(Targets.of_taxonomy(labels, graph, decay=decay, radius=radius)).grades
    for i, j in itertools.product(range(len(labels)), range(graph.num_nodes)):
        steps = graph.distance(int(labels[i]), j)
        expected = decay**steps if steps <= radius else 0.0
        assert float(found[i, j]) == pytest.approx(expected, rel=1e-6)
    assert (found > 0).any()
