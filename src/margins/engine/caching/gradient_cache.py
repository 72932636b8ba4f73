"""Gradient caching: losses over more embeddings than an encoder can hold the graph of.

The chunks are encoded without a graph, the loss is differentiated by the embeddings, and each chunk is
encoded once more, with the same random numbers, to carry its part of the gradient into the encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from margins.engine.caching.chunk_memory import bytes_per_row
from margins.engine.caching.random_state import RandomState
from margins.engine.free_memory import free_bytes
from margins.errors import MarginsError, describe

Encoder = Callable[[Any], Tensor]
PROBED_ROWS = 8
SHARE_OF_FREE = 0.25
"""Of the free memory for a chunk's graph: backward holds gradients of the same size, and others live here."""


class GradientCache:
    """One step of a batch loss in chunks, with the gradients of one big batch.

    Use it where every row's loss looks at the whole batch (InfoNCE, SupCon, soft top-k) and the encoder's
    activations do not fit: memory is that of one chunk plus all embeddings, time one more forward pass. A
    loss whose rows are independent needs only accumulation.

    Dropout is replayed: the state of torch's generator, of the devices that the inputs are on and of the
    given generators is recorded for each chunk. An encoder that draws from elsewhere (numpy, a data
    pipeline) would differ in the second pass. Batch normalisation in training mode is refused, since its
    statistics would be those of a chunk.

    Args:
        encoders: what turns inputs into embeddings [n, ...]: one for all views, or a sequence of one a
            view (queries and documents).
        chunk_size: rows encoded at once, or "auto": what fits a quarter of the free memory, by the
            memory that a probe of the first rows keeps for backward. Give a number where rows differ in size.
        generators: further generators that the encoders draw from.
        free_memory: bytes, for "auto"; asked of the device when None.

    Example:
        >>> encoder = torch.nn.Linear(3, 2)
        >>> cache = GradientCache(encoder, chunk_size=4)
        >>> loss = cache.step(lambda a, b: (a @ b.T).square().mean(), torch.ones(6, 3), torch.ones(6, 3))
        >>> encoder.weight.grad is not None
        True

    References:
        Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, 2021,
        arXiv 2101.06983.
    """

    def __init__(
        self,
        encoders: Encoder | Sequence[Encoder],
        *,
        chunk_size: int | Literal["auto"],
        generators: Iterable[torch.Generator] = (),
        free_memory: int | None = None,
    ) -> None:
        if chunk_size != "auto" and chunk_size < 1:
            raise MarginsError("chunk_size", expected="at least 1, or 'auto'", received=repr(chunk_size))
        self._encoders = encoders
        self._chunk_size = chunk_size
        self._generators = tuple(generators)
        self._free_memory = free_memory
        self.chunk_sizes: tuple[int, ...] = ()
        """Rows encoded at once, view by view; known after the first step."""

    def step(
        self, loss: Callable[..., Tensor], *inputs: Any, scaler: torch.amp.GradScaler | None = None
    ) -> Tensor:
        """Adds the gradients of the loss of all rows to the encoders' parameters.

        Parameters of the loss get theirs too. If anything raises, the encoders' gradients are those from
        before the step.

        Args:
            loss: a function of the embeddings of every view, in order, that returns a scalar.
            inputs: one a view: a tensor whose first axis is the rows, or a tuple, list or dict of such.
            scaler: scales the loss before it is differentiated, as in a plain step.

        Returns:
            The loss, detached and not scaled.
        """
        views = self._views(inputs)
        for encoder in self._encoders_of(views):
            _refuse_batch_statistics(encoder)
        self._choose_chunks(views)
        devices = {t.device for _, view in views for t in _tensors(view)}
        with _kept_gradients(_parameters(encoder for encoder, _ in views)):
            seen, states = self._encoded(views, devices)
            found = loss(*seen)
            if found.numel() != 1:
                raise MarginsError("loss", expected="a scalar", received=describe(found))
            torch.autograd.backward(found if scaler is None else scaler.scale(found))
            after = RandomState.now(devices, self._generators)
            try:
                self._carried(views, seen, states)
            finally:
                after.restore()
        return found.detach()

    def _views(self, inputs: tuple[Any, ...]) -> list[tuple[Encoder, Any]]:
        if callable(self._encoders):
            return [(self._encoders, view) for view in inputs]
        if len(inputs) != len(self._encoders):
            raise MarginsError(
                "inputs", expected=f"one a encoder: {len(self._encoders)}", received=str(len(inputs))
            )
        return list(zip(self._encoders, inputs, strict=True))

    def _encoders_of(self, views: list[tuple[Encoder, Any]]) -> list[Encoder]:
        return list({id(encoder): encoder for encoder, _ in views}.values())

    def _choose_chunks(self, views: list[tuple[Encoder, Any]]) -> None:
        size = self._chunk_size
        if isinstance(size, int):
            self.chunk_sizes = (size,) * len(views)
        elif len(self.chunk_sizes) != len(views):
            self.chunk_sizes = tuple(self._fitting(encoder, view) for encoder, view in views)

    def _fitting(self, encoder: Encoder, view: Any) -> int:
        num_rows, device = _num_rows(view), _tensors(view)[0].device
        before = RandomState.now({device}, self._generators)
        needed = bytes_per_row(encoder, _rows(view, 0, min(num_rows, PROBED_ROWS)), _parameters([encoder]))
        before.restore()
        free = free_bytes(device) if self._free_memory is None else self._free_memory
        return max(1, min(num_rows, int(SHARE_OF_FREE * free / max(needed, 1.0))))

    def _encoded(
        self, views: list[tuple[Encoder, Any]], devices: set[torch.device]
    ) -> tuple[list[Tensor], list[list[RandomState]]]:
        """All embeddings, as leaves, and what the random state was before each chunk."""
        embeddings: list[Tensor] = []
        states: list[list[RandomState]] = []
        for (encoder, view), size in zip(views, self.chunk_sizes, strict=True):
            parts, before = [], []
            with torch.no_grad():
                for start, stop in _chunks(view, size):
                    before.append(RandomState.now(devices, self._generators))
                    parts.append(encoder(_rows(view, start, stop)))
            embeddings.append(torch.cat(parts).requires_grad_())
            states.append(before)
        # Autocast keeps the weights that it cast here, without a graph, and would use them again.
        torch.clear_autocast_cache()
        return embeddings, states

    def _carried(
        self, views: list[tuple[Encoder, Any]], seen: list[Tensor], states: list[list[RandomState]]
    ) -> None:
        """Encodes each chunk again and sends its part of the gradient through it."""
        for (encoder, view), whole, before, size in zip(views, seen, states, self.chunk_sizes, strict=True):
            if whole.grad is None:
                continue  # the loss does not look at this view
            for (start, stop), state in zip(_chunks(view, size), before, strict=True):
                state.restore()
                embeddings = encoder(_rows(view, start, stop))
                if embeddings.requires_grad:
                    torch.autograd.backward(embeddings, whole.grad[start:stop])


def _chunks(view: Any, size: int) -> list[tuple[int, int]]:
    num_rows = _num_rows(view)
    return [(a, min(a + size, num_rows)) for a in range(0, num_rows, size)] or [(0, 0)]


def _tensors(view: Any) -> list[Tensor]:
    if isinstance(view, Tensor):
        return [view]
    if isinstance(view, Mapping):
        view = list(cast("Mapping[Any, Any]", view).values())
    if isinstance(view, (tuple, list)):
        return [t for part in cast("Sequence[Any]", view) for t in _tensors(part)]
    raise MarginsError(
        "inputs", expected="tensors [B, ...], or tuples, lists or dicts of them", received=describe(view)
    )


def _num_rows(view: Any) -> int:
    sizes = {t.shape[0] if t.ndim else -1 for t in _tensors(view)}
    if len(sizes) != 1 or -1 in sizes:
        raise MarginsError(
            "inputs", expected="tensors with one number of rows B in front", received=f"{sorted(sizes)}"
        )
    return sizes.pop()


def _rows(view: Any, start: int, stop: int) -> Any:
    if isinstance(view, Tensor):
        return view[start:stop]
    if isinstance(view, Mapping):
        parts = cast("Mapping[Any, Any]", view)
        return {key: _rows(part, start, stop) for key, part in parts.items()}
    return type(view)(_rows(part, start, stop) for part in view)


def _modules(encoder: Encoder) -> Iterator[nn.Module]:
    owner = encoder if isinstance(encoder, nn.Module) else getattr(encoder, "__self__", None)
    if isinstance(owner, nn.Module):
        yield from owner.modules()


def _refuse_batch_statistics(encoder: Encoder) -> None:
    for module in _modules(encoder):
        if isinstance(module, _BatchNorm) and module.training:
            raise MarginsError(
                "encoders",
                expected="encoders whose rows are independent",
                received=f"{type(module).__name__} in training mode",
                fix="its statistics would be a chunk's, and updated twice: call .eval() on it, or use "
                "GroupNorm or LayerNorm",
            )


def _parameters(encoders: Iterable[Encoder]) -> list[nn.Parameter]:
    found: dict[int, nn.Parameter] = {}
    for encoder in encoders:
        for module in _modules(encoder):
            found.update((id(p), p) for p in module.parameters(recurse=False))
    return list(found.values())


@contextmanager
def _kept_gradients(parameters: list[nn.Parameter]) -> Generator[None]:
    """Gradients made inside are added to those from before; if something raises, they are dropped."""
    before = [p.grad for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        yield
    except BaseException:
        for parameter, old in zip(parameters, before, strict=True):
            parameter.grad = old
        raise
    for parameter, old in zip(parameters, before, strict=True):
        if old is not None:
            parameter.grad = old if parameter.grad is None else old.add_(parameter.grad)
