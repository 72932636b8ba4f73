"""Laws of losses of maps, of deep supervision and of refinement."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch.nn import functional

from margins.errors import MarginsError
from margins.heads import ResidualRefine
from margins.losses import SSIM, DeepSupervision, HybridMask, SoftIoU
from reference import maps as reference

LOSSES = {
    "ssim": lambda **kw: SSIM(link="sigmoid", **kw),
    "ssim of sequences": lambda **kw: SSIM(7, 1.0, dims=1, link="sigmoid", **kw),
    "iou": lambda **kw: SoftIoU(link="sigmoid", **kw),
    "hybrid": lambda **kw: HybridMask(bce=0.5, ssim=2.0, iou=0.7, **kw),
    "hybrid of sequences": lambda **kw: HybridMask(dims=1, **kw),
}


def _shape(name: str) -> tuple[int, ...]:
    return (3, 2, 13) if "sequences" in name else (3, 2, 9, 13)


def _batch(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(shape, generator=draws, dtype=torch.float64)
    return scores, (torch.rand(shape, generator=draws) < 0.4).double()


def test_ssim_is_that_of_scikit_image_on_interior_pixels():
    draws = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 1, 1, 40, 31, generator=draws, dtype=torch.float64)
    found = SSIM(link="identity").similarity(first, second)[0, 0, 5:-5, 5:-5]
    _, expected = structural_similarity(
        first[0, 0].numpy(), second[0, 0].numpy(), data_range=1.0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    np.testing.assert_allclose(found, expected[5:-5, 5:-5], atol=1e-5)
    assert np.ptp(expected) > 0.1, "vacuous: the similarity is the same everywhere"


@pytest.mark.parametrize("shape", [(2, 1, 9, 13), (2, 1, 17)])
def test_map_losses_equal_the_reference(shape):
    scores, targets = _batch(*shape)
    dims, flat = len(shape) - 2, (scores[:, 0].numpy(), targets[:, 0].numpy())
    predicted = scores.sigmoid()[:, 0].numpy()
    cases = {
        "ssim": (SSIM(7, 1.2, dims=dims, link="sigmoid", reduction="none"),
                 reference.ssim_loss(predicted, flat[1], window=7, sigma=1.2)),
        "iou": (SoftIoU(link="sigmoid", reduction="none"), reference.iou_loss(predicted, flat[1])),
        "hybrid": (HybridMask(bce=0.5, ssim=2.0, iou=0.7, dims=dims, reduction="none"),
                   reference.hybrid(*flat, bce=0.5, ssim=2.0, iou=0.7)),
    }  # fmt: skip
    for loss, expected in cases.values():
        np.testing.assert_allclose(loss(scores, targets), expected, rtol=1e-9)
        assert min(expected) > 0.1, "vacuous"


def test_maps_equal_to_their_targets_have_no_loss():
    _, targets = _batch(2, 1, 12, 12)
    for loss in (SSIM(link="identity"), SoftIoU(link="identity")):
        assert loss(targets, targets).item() == pytest.approx(0.0, abs=1e-12)
        assert loss(1 - targets, targets) > 0.9, "vacuous"


def test_soft_iou_of_binary_maps_is_that_of_counts():
    _, targets = _batch(4, 1, 6, 5)
    _, predicted = _batch(4, 1, 6, 5, seed=1)
    tp, wrong = ((x > 0).flatten(1).sum(1) for x in (targets * predicted, (targets - predicted).abs()))
    found = SoftIoU(link="identity", reduction="none")(predicted, targets)
    torch.testing.assert_close(found, 1 - tp / (tp + wrong).double(), rtol=1e-14, atol=1e-14)
    assert 0 < tp.min() < tp.max(), "vacuous"


def test_hybrid_mask_is_the_sum_of_its_parts():
    scores, targets = _batch(3, 1, 12, 14)
    parts = (
        functional.binary_cross_entropy_with_logits(scores, targets),
        SSIM(link="sigmoid")(scores, targets),
        SoftIoU(link="sigmoid")(scores, targets),
    )
    torch.testing.assert_close(HybridMask()(scores, targets), sum(parts))
    weighted = 0.5 * parts[0] + 2 * parts[1] + 0.25 * parts[2]
    torch.testing.assert_close(HybridMask(bce=0.5, ssim=2.0, iou=0.25)(scores, targets), weighted)


@pytest.mark.parametrize("name", LOSSES)
def test_map_losses_have_the_gradient_of_their_value(name):
    scores, targets = _batch(*((2, 1, 9) if "sequences" in name else (2, 1, 4, 5)))
    known = torch.rand(targets.shape, generator=torch.Generator().manual_seed(2)) < 0.8
    scores, loss = scores.requires_grad_(), LOSSES[name]()
    assert torch.autograd.gradcheck(lambda x: loss(x, targets, known=known), (scores,))


@pytest.mark.parametrize("name", LOSSES)
def test_the_reduction_of_map_losses_is_that_of_the_house(name):
    scores, targets = _batch(*_shape(name))
    each = LOSSES[name](reduction="none")(scores, targets)
    weight = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    weighted = {
        r: LOSSES[name](reduction=r)(scores, targets, weight=weight) for r in ("mean", "weighted_mean")
    }
    torch.testing.assert_close(weighted["mean"], (each * weight).sum() / 3)
    torch.testing.assert_close(weighted["weighted_mean"], (each * weight).sum() / 3.5)
    torch.testing.assert_close(LOSSES[name](reduction="sum")(scores, targets), each.sum())
    torch.testing.assert_close(LOSSES[name]()(scores, targets, denominator=6.0), each.sum() / 6)
    assert each.std() > 1e-3, "vacuous: all maps have the same loss"


@pytest.mark.parametrize("name", LOSSES)
def test_a_padded_map_has_the_loss_of_the_map_itself(name):
    scores, targets = _batch(*_shape(name))
    padded = [functional.pad(x, (0, 6), value=v) for x, v in ((scores, 3.0), (targets, 1.0))]
    known = functional.pad(torch.ones_like(targets), (0, 6)) > 0
    plain = LOSSES[name]()(scores, targets)
    torch.testing.assert_close(LOSSES[name]()(*padded, known=known), plain)
    assert (LOSSES[name]()(*padded) - plain).abs() > 1e-3, "vacuous: padding changes nothing"


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_map_losses_compute_half_precision_in_float32(name, dtype):
    scores, targets = _batch(*_shape(name))
    half = (50 * scores).clamp(-100, 100).to(dtype).requires_grad_()
    found = LOSSES[name]()(half, targets.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, LOSSES[name]()(half.detach().float(), targets.float()))
    (grad,) = torch.autograd.grad(found, half)
    assert bool(torch.isfinite(grad).all())


@pytest.mark.parametrize("name", LOSSES)
def test_a_map_without_a_known_place_is_a_zero_on_the_graph_and_does_not_count(name):
    scores, targets = _batch(*_shape(name))
    known = torch.ones_like(targets) > 0
    known[1] = False
    kept = [0, 2]
    leaf = scores.clone().requires_grad_()
    found = LOSSES[name]()(leaf, targets, known=known)
    torch.testing.assert_close(found, LOSSES[name]()(scores[kept], targets[kept]))
    (grad,) = torch.autograd.grad(found, leaf)
    assert bool((grad[1] == 0).all())
    assert grad[0].abs().max() > 1e-6
    for rows in (0, 3):
        leaf = scores[:rows].clone().requires_grad_()
        empty = LOSSES[name]()(leaf, targets[:rows], known=torch.zeros_like(known)[:rows])
        assert empty.item() == 0
        assert bool((torch.autograd.grad(empty, leaf)[0] == 0).all())


def test_a_map_whose_target_is_empty_has_no_overlap_to_learn():
    scores, targets = _batch(3, 1, 8, 8)
    targets[1] = 0.0
    overlap = SoftIoU(link="sigmoid")
    assert overlap.rows(scores, targets).num_degenerate == 1
    torch.testing.assert_close(overlap(scores, targets), overlap(scores[[0, 2]], targets[[0, 2]]))
    each = HybridMask(reduction="none")(scores, targets)
    without = HybridMask(iou=0.0, reduction="none")(scores, targets)
    torch.testing.assert_close(each[1], without[1])
    assert (each - without)[0] > 0.1, "vacuous: overlap adds nothing"


def test_deep_supervision_is_the_weighted_sum_over_outputs_of_full_size():
    scores, targets = _batch(2, 1, 16, 12)
    small = scores[:, :, ::4, ::3].contiguous()
    outputs = {"refined": scores, "side": small}
    enlarged = functional.interpolate(small, size=(16, 12), mode="bilinear", align_corners=False)
    whole = HybridMask(reduction="none")
    found = DeepSupervision(whole, weights={"side": 0.25})(outputs, targets)
    torch.testing.assert_close(found, whole(scores, targets) + 0.25 * whole(enlarged, targets))
    plain = reference.deep_supervision([scores[:, 0].numpy(), enlarged[:, 0].numpy()], targets[:, 0].numpy())
    np.testing.assert_allclose(DeepSupervision(whole)(outputs, targets), plain, rtol=1e-9)
    # One output of full size, and one that is a sequence.
    torch.testing.assert_close(DeepSupervision(whole)({"a": scores}, targets), whole(scores, targets))
    spans = DeepSupervision(HybridMask(dims=1))({"a": scores[:, :, 0, ::2]}, targets[:, :, 0])
    assert spans > 0.1


def test_an_untrained_refinement_changes_nothing_and_learns():
    refine = ResidualRefine(1, width=8, generator=torch.Generator().manual_seed(0))
    draws = torch.Generator().manual_seed(1)
    targets = torch.zeros(8, 1, 15, 13)
    for item in range(8):  # rectangles, seen blurred
        top, left = torch.randint(1, 6, (2,), generator=draws).tolist()
        targets[item, 0, top : top + 7, left : left + 6] = 1.0
    coarse = functional.avg_pool2d(8 * targets - 4, 5, stride=1, padding=2, count_include_pad=False)
    torch.testing.assert_close(refine(coarse), coarse, rtol=0, atol=0)
    loss, optimiser = HybridMask(), torch.optim.Adam(refine.parameters(), lr=0.01)
    before = loss(coarse, targets).item()
    for _ in range(30):
        optimiser.zero_grad()
        value = loss(refine(coarse), targets)
        value.backward()
        optimiser.step()
    assert before > 0.3, "vacuous: nothing to refine"
    assert value.item() < 0.6 * before


def test_losses_of_maps_refuse_what_does_not_fit():
    scores, targets = _batch(2, 1, 8, 8)
    wrong = {
        "window": lambda: SSIM(10, link="sigmoid"),
        "sigma": lambda: SSIM(sigma=0.0, link="sigmoid"),
        "bce": lambda: HybridMask(bce=-1.0),
        r"maps.*in \[0, 1\].*link='sigmoid'": lambda: SoftIoU(link="identity")(scores, targets),
        r"targets.*in \[0, 1\]": lambda: HybridMask()(scores, 2 * targets),
        r"maps.*dims=1": lambda: SSIM(dims=1, link="sigmoid")(scores, targets),
        r"outputs.*side": lambda: DeepSupervision(HybridMask(), weights={"side": 1.0})({}, targets),
        r"weights\['side'\]": lambda: DeepSupervision(HybridMask(), weights={"side": -1.0}),
        r"outputs\['a'\]": lambda: DeepSupervision(HybridMask())({"a": scores[0]}, targets),
        "depth": lambda: ResidualRefine(depth=0, generator=torch.Generator()),
        "logits": lambda: ResidualRefine(2, generator=torch.Generator())(scores),
        "maps.*finite": lambda: HybridMask()(scores / 0, targets),
    }
    for words, call in wrong.items():
        with pytest.raises(MarginsError, match=words):
            call()
