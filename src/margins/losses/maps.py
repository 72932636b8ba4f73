"""Losses of maps: structure, overlap, their sum with cross-entropy, and supervision at several depths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from margins.cards import LossCard, carded
from margins.errors import MarginsError, describe
from margins.losses.forms.base import Loss, in_range
from margins.losses.forms.counts import soft_confusion
from margins.losses.forms.maps import MapLink, MapsLoss

_C1, _C2 = 0.01**2, 0.03**2  # of Wang et al., for maps in [0, 1]
_PAPER = (
    "Qin et al., Boundary-Aware Segmentation Network for Mobile and Web Applications, 2021, arXiv 2101.04704"
)


@carded(
    LossCard(
        name="Structural similarity loss",
        summary="maps that agree in every window in mean, contrast and shape; beside a loss of single places",
        paper="Wang, Bovik, Sheikh, Simoncelli, Image Quality Assessment: From Error Visibility to "
        "Structural Similarity, 2004, doi 10.1109/TIP.2003.819861",
        entry=135,
        targets=("maps",),
        distributed="independent",
        comparable=True,
        collapse="near 1: a constant map has no covariance with its target",
        limits=("maps equal to their targets: 0",),
        tests=(
            "tests/test_maps.py::test_ssim_is_that_of_scikit_image_on_interior_pixels",
            "tests/test_maps.py::test_maps_equal_to_their_targets_have_no_loss",
        ),
        study="hybrid_mask",
    )
)
class SSIM(MapsLoss):
    r"""One minus the mean structural similarity of maps and targets, in Gaussian windows.

    Use it beside a loss of single places, for edges that must be sharp: a window that holds an edge weighs
    the same as one that is flat, and its loss is larger. Not alone: where both maps are flat it asks for
    little.

    $SSIM = \frac{(2 \mu_S \mu_G + C_1)(2 \sigma_{SG} + C_2)}
    {(\mu_S^2 + \mu_G^2 + C_1)(\sigma_S^2 + \sigma_G^2 + C_2)}$ at every place, with means, variances and
    covariance under the window, $C_1 = 0.01^2$, $C_2 = 0.03^2$; beyond the border maps are 0. $L = 1 - $ the
    mean over known places. A channel is compared with its own channel.

    Args:
        window: places a side, odd.
        sigma: of the Gaussian, in places, > 0.
        dims: 1 for sequences [B, C, T], 2 for images [B, C, H, W].
        link: "sigmoid" when maps are logits, "identity" when they are in [0, 1].
        reduction: over maps; see `margins.engine.reduction`.

    Raises:
        MarginsError: an even window, a sigma that is not positive, other dims; maps of other axes.

    References:
        Wang et al. 2004; as a loss of masks Qin et al. 2021, arXiv 2101.04704.

    Example:
        >>> edge = torch.zeros(1, 1, 16, 16).index_fill(3, torch.arange(8), 1.0)
        >>> SSIM(link="identity")(edge, edge).item(), SSIM(link="identity")(1 - edge, edge) > 1
        (0.0, tensor(True))
    """

    def __init__(
        self,
        window: int = 11,
        sigma: float = 1.5,
        *,
        dims: Literal[1, 2] = 2,
        link: MapLink,
        reduction: str = "mean",
    ) -> None:
        super().__init__(link=link, reduction=reduction)
        if window < 1 or window % 2 == 0:
            raise MarginsError("window", expected="an odd number of places", received=str(window))
        if dims not in (1, 2):
            raise MarginsError("dims", expected="1 (sequences) or 2 (images)", received=repr(dims))
        self.window = window
        self.sigma = in_range("sigma", sigma, low=0, open_low=True)
        self.dims = dims

    def per_map(
        self,
        maps: Float[Tensor, "maps channels *space"],
        targets: Float[Tensor, "maps channels *space"],
        known: Float[Tensor, "maps channels *space"],
    ) -> Float[Tensor, " maps"]:
        """One minus the mean similarity of known places; others are 0 in both, as beyond the border."""
        similar = self.similarity(self.predicted(maps) * known, targets * known)
        return ((1 - similar) * known).flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)

    def similarity(
        self, first: Float[Tensor, "maps channels *space"], second: Float[Tensor, "maps channels *space"]
    ) -> Float[Tensor, "maps channels *space"]:
        """The similarity at every place of two maps in [0, 1]."""
        if first.ndim != self.dims + 2:
            letters = "[B, C, T]" if self.dims == 1 else "[B, C, H, W]"
            raise MarginsError("maps", expected=f"{letters} for dims={self.dims}", received=describe(first))
        moments = torch.stack([first, second, first * first, second * second, first * second])
        mean_1, mean_2, square_1, square_2, product = self._under_window(moments)
        both, means = mean_1 * mean_2, mean_1.square() + mean_2.square()
        variances = square_1 + square_2 - means
        return ((2 * both + _C1) * (2 * (product - both) + _C2)) / ((means + _C1) * (variances + _C2))

    def _under_window(self, stacked: Tensor) -> Tensor:
        """Means under the window, which is a product of one Gaussian an axis."""
        half = self.window // 2
        offsets = torch.arange(-half, half + 1, dtype=stacked.dtype, device=stacked.device)
        gauss = torch.exp(-offsets.square() / (2 * self.sigma**2))
        gauss = gauss / gauss.sum()
        space = stacked.shape[-self.dims :]
        # As channels of one item, each by itself: on processors far faster than as items of one channel.
        single = stacked.reshape(1, -1, *space)
        num = single.shape[1]
        if num == 0:
            return stacked
        if self.dims == 1:
            single = functional.conv1d(single, gauss.expand(num, 1, -1), padding=half, groups=num)
        else:
            down, across = gauss[:, None].expand(num, 1, -1, 1), gauss.expand(num, 1, 1, -1)
            single = functional.conv2d(single, down, padding=(half, 0), groups=num)
            single = functional.conv2d(single, across, padding=(0, half), groups=num)
        return single.reshape(stacked.shape)


@carded(
    LossCard(
        name="Soft IoU",
        summary="overlap of whole maps with their targets, however small the target's share of the map",
        paper="Rahman and Wang, Optimizing Intersection-Over-Union in Deep Neural Networks for Image "
        "Segmentation, ISVC 2016",
        entry=135,
        targets=("maps",),
        distributed="independent",
        comparable=True,
        collapse="near 1: nothing predicted; one minus the target's share of the map: everything predicted",
        limits=("maps of 0 and 1: 1 - TP / (TP + FP + FN)",),
        tests=(
            "tests/test_maps.py::test_soft_iou_of_binary_maps_is_that_of_counts",
            "tests/test_maps.py::test_maps_equal_to_their_targets_have_no_loss",
        ),
        study="hybrid_mask",
    )
)
class SoftIoU(MapsLoss):
    r"""One minus intersection over union of each map, both soft.

    Use it beside cross-entropy, for masks that fill little of their map. Not for maps whose target is empty:
    their value would be 1 whatever is predicted, so they give 0 and do not count.

    $L = 1 - \frac{\sum S G}{\sum S + \sum G - \sum S G}$, the sums over one map and all its channels.

    Args:
        link: "sigmoid" when maps are logits, "identity" when they are in [0, 1].
        reduction: over maps; see `margins.engine.reduction`.

    Raises:
        MarginsError: maps that do not fit their link or their targets.

    References:
        Rahman and Wang, ISVC 2016; beside cross-entropy Qin et al. 2021, arXiv 2101.04704.

    Example:
        >>> mask = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
        >>> SoftIoU(link="identity")(torch.tensor([[[0.0, 1.0, 1.0, 0.0]]]), mask)
        tensor(0.6667)
    """

    needs_positives = True

    def __init__(self, *, link: MapLink, reduction: str = "mean") -> None:
        super().__init__(link=link, reduction=reduction)

    def per_map(
        self,
        maps: Float[Tensor, "maps channels *space"],
        targets: Float[Tensor, "maps channels *space"],
        known: Float[Tensor, "maps channels *space"],
    ) -> Float[Tensor, " maps"]:
        """One minus the soft intersection over union; 0 where nothing is to be found."""
        counts = soft_confusion(self.predicted(maps), targets, known, dims=tuple(range(1, maps.ndim)))
        union = counts.tp + counts.fp + counts.fn
        return torch.where(counts.tp + counts.fn > 0, 1 - counts.tp / union.clamp(min=1e-12), 0.0)


@carded(
    LossCard(
        name="Hybrid mask loss",
        summary="masks with sharp edges: cross-entropy of places, similarity of windows, overlap of maps",
        paper=_PAPER,
        entry=135,
        targets=("maps",),
        distributed="independent",
        comparable=True,
        collapse="near bce * log 2 + ssim + iou * (1 - the target's share): one half everywhere",
        limits=("ssim = iou = 0: binary cross-entropy of places", "bce = ssim = 0: soft IoU"),
        tests=("tests/test_maps.py::test_hybrid_mask_is_the_sum_of_its_parts",),
        study="hybrid_mask",
    )
)
class HybridMask(MapsLoss):
    r"""Cross-entropy, structural similarity and soft IoU of one map, added: three grains of one error.

    Use it for masks and spans whose edges matter. Not as a yardstick between runs of other weights, and not
    for probabilities that must be calibrated: similarity and overlap push them to 0 and 1. Maps are logits.

    $L = w_b\,BCE + w_s\,(1 - SSIM) + w_u\,(1 - IoU)$ map by map; one with an empty target has the first two.

    Args:
        bce: $w_b$ >= 0.
        ssim: $w_s$ >= 0.
        iou: $w_u$ >= 0.
        window: see `SSIM`.
        sigma: see `SSIM`.
        dims: 1 for sequences [B, C, T], 2 for images [B, C, H, W].
        reduction: over maps; see `margins.engine.reduction`.

    Raises:
        MarginsError: a negative weight, or what `SSIM` refuses.

    References:
        Qin et al. 2021, arXiv 2101.04704, the hybrid loss. For sequences it is our own extension.

    Example:
        >>> mask = torch.zeros(1, 1, 16, 16).index_fill(3, torch.arange(8), 1.0)
        >>> HybridMask()(8 * (2 * mask - 1), mask) < 0.01, HybridMask()(mask - 0.5, mask) > 1
        (tensor(True), tensor(True))
    """

    def __init__(
        self,
        *,
        bce: float = 1.0,
        ssim: float = 1.0,
        iou: float = 1.0,
        window: int = 11,
        sigma: float = 1.5,
        dims: Literal[1, 2] = 2,
        reduction: str = "mean",
    ) -> None:
        super().__init__(link="sigmoid", reduction=reduction)
        self.bce = in_range("bce", bce, low=0)
        self.ssim = in_range("ssim", ssim, low=0)
        self.iou = in_range("iou", iou, low=0)
        self._similarity = SSIM(window, sigma, dims=dims, link="sigmoid")
        self._overlap = SoftIoU(link="sigmoid")

    def per_map(
        self,
        maps: Float[Tensor, "maps channels *space"],
        targets: Float[Tensor, "maps channels *space"],
        known: Float[Tensor, "maps channels *space"],
    ) -> Float[Tensor, " maps"]:
        """The weighted sum of the three."""
        total = self.bce * _cross_entropy(maps, targets, known)
        if self.ssim > 0:
            total = total + self.ssim * self._similarity.per_map(maps, targets, known)
        return total + self.iou * self._overlap.per_map(maps, targets, known)


def _cross_entropy(maps: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    places = -(targets * functional.logsigmoid(maps) + (1 - targets) * functional.logsigmoid(-maps))
    return (places * known).flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)


@carded(
    LossCard(
        name="Deep supervision",
        summary="the same map asked of several layers of a network, each brought to full size; deep networks",
        paper="Lee et al., Deeply-Supervised Nets, 2015, arXiv 1409.5185",
        entry=135,
        targets=("maps",),
        distributed="independent",
        comparable=True,
        collapse="the weighted sum of the outputs' own",
        limits=("one output of full size: the loss itself",),
        tests=("tests/test_maps.py::test_deep_supervision_is_the_weighted_sum_over_outputs_of_full_size",),
        study="hybrid_mask",
    )
)
class DeepSupervision(Loss):
    r"""$\sum_k \alpha_k L(\text{resized } output_k, targets)$: one loss of maps on several outputs.

    Use it on the side outputs of an encoder-decoder and on both maps of a predict-refine pair. Not where
    outputs have targets of their own: that is `MultiHead`. Smaller maps are interpolated linearly to the size
    of the targets, as logits when the loss takes logits.

    Args:
        loss: of maps.
        weights: $\alpha_k$ >= 0 by output; 1 for an output that is not named.

    Raises:
        MarginsError: a negative weight; at a call, no outputs or a weight of one that is not there.

    References:
        Lee et al. 2015, arXiv 1409.5185; with this loss Qin et al. 2021, arXiv 2101.04704.

    Example:
        >>> loss = DeepSupervision(HybridMask(), weights={"bridge": 0.5})
        >>> mask = torch.zeros(2, 1, 16, 16).index_fill(3, torch.arange(8), 1.0)
        >>> outputs = {"refined": 40 * (2 * mask - 1), "bridge": torch.zeros(2, 1, 4, 4)}
        >>> torch.isclose(loss(outputs, mask), 0.5 * HybridMask()(torch.zeros(2, 1, 16, 16), mask))
        tensor(True)
    """

    form = "outputs"

    def __init__(self, loss: MapsLoss, *, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(reduction=loss.reduction)
        self.loss = loss
        given = dict(weights or {})
        self.weights = {name: in_range(f"weights[{name!r}]", weight, low=0) for name, weight in given.items()}

    def forward(
        self,
        outputs: Mapping[str, Tensor],
        targets: Float[Tensor, "maps channels *space"],
        *,
        known: Bool[Tensor, "maps channels *space"] | None = None,
        weight: Float[Tensor, " maps"] | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """The weighted sum over outputs.

        Args:
            outputs: maps by name, [B, C, *size] of any size.
            targets: [B, C, T] or [B, C, H, W], one for all outputs.
            known: see `MapsLoss`.
            weight: see `MapsLoss`.
        """
        missing = set(self.weights) - set(outputs)
        if not outputs or missing:
            raise MarginsError(
                "outputs", expected=f"maps by name, {sorted(self.weights)} among them",
                received=f"{sorted(outputs)}",
            )  # fmt: skip
        terms = [
            self.weights.get(name, 1.0)
            * cast("Tensor", self.loss(_resized(name, maps, targets), targets, known=known, weight=weight))
            for name, maps in outputs.items()
        ]
        return torch.stack(terms).sum(0)


def _resized(name: str, maps: Tensor, targets: Tensor) -> Tensor:
    """The maps at the size of the targets."""
    if maps.ndim != targets.ndim or maps.ndim not in (3, 4):
        raise MarginsError(
            f"outputs[{name!r}]", expected="[B, C, T] or [B, C, H, W], with the axes of the targets",
            received=f"{describe(maps)} for {describe(targets)}",
        )  # fmt: skip
    if maps.shape[2:] == targets.shape[2:]:
        return maps
    mode = "linear" if maps.ndim == 3 else "bilinear"
    return functional.interpolate(maps, size=targets.shape[2:], mode=mode, align_corners=False)
