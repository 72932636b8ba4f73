"""A pretrained transformer and its tokenizer, from a folder or from a hub's local copies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from margins.data.extras import extra
from margins.encoders.inputs import ragged_entries
from margins.encoders.pooling import PoolingName
from margins.errors import MarginsError

_KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")
_POOLING_OF = {"mean": "mean", "cls": "cls", "cls_token": "cls", "lasttoken": "last", "mean_tokens": "mean"}


@dataclass(frozen=True, eq=False)
class TokenIds:
    """Token ids of texts, each row as long as its text: row i owns `ids[offsets[i]:offsets[i + 1]]`."""

    ids: Tensor  # [E] int64
    offsets: Tensor  # [N + 1] int64
    padding: int  # the id that stands for no token

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.offsets) - 1

    def take(self, rows: Tensor) -> TokenIds:
        """The texts of these rows, in this order."""
        places, offsets = ragged_entries(self.offsets, rows)
        return TokenIds(self.ids[places], offsets, self.padding)

    def to(self, device: torch.device | str) -> TokenIds:
        """The same texts on a device."""
        ids, offsets = (t.to(device, non_blocking=True) for t in (self.ids, self.offsets))
        return TokenIds(ids, offsets, self.padding)

    def joined(self, other: TokenIds) -> TokenIds:
        """These texts and then the other ones."""
        offsets = torch.cat([self.offsets, other.offsets[1:] + self.offsets[-1]])
        return TokenIds(torch.cat([self.ids, other.ids]), offsets, self.padding)

    def padded(self) -> tuple[Tensor, Tensor]:
        """Ids [B, longest] with padding at the end, and which of them are real."""
        lengths = self.offsets.diff()
        places = torch.arange(int(lengths.max()), device=self.ids.device)
        mask = places < lengths[:, None]
        ids = torch.full(mask.shape, self.padding, device=self.ids.device)
        return ids.masked_scatter(mask, self.ids), mask


@dataclass(frozen=True, eq=False)
class PretrainedModel:
    """The network without its own pooling layer or dropout, and what turns texts into its ids."""

    network: nn.Module
    tokenizer: Any
    width: int
    num_layers: int  # counting the embedding of tokens
    sha256: str  # of weights and vocabulary

    def tokenised(self, texts: Sequence[str], *, max_tokens: int) -> TokenIds:
        """Ids of texts, cut to `max_tokens`, special tokens included."""
        longest = int(self.tokenizer.model_max_length)
        if max_tokens > longest:
            raise MarginsError(
                "max_tokens",
                expected=f"at most {longest}, which the model can read",
                received=str(max_tokens),
            )
        padding = self.tokenizer.pad_token_id or 0
        rows: list[list[int]] = []
        if texts:
            rows = self.tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
        # Attention over no token at all is not defined: a text without any gets one of padding.
        rows = [row or [padding] for row in rows]
        ids = np.concatenate([np.zeros(0, np.int64), *(np.array(row, np.int64) for row in rows)])
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        return TokenIds(torch.from_numpy(ids), torch.from_numpy(offsets), padding)


def load_model(name: str, *, download: bool) -> PretrainedModel:
    """Loads a model in float32 from a folder, or from the local copies of a hub.

    Args:
        name: a folder, or a name on the hub.
        download: whether a name that is not a folder may be fetched over the network.

    Raises:
        MarginsError: it is not there, or holds what cannot be used.
    """
    with extra("text"):
        from transformers import AutoConfig, AutoModel, AutoTokenizer
    here_only: dict[str, Any] = {"local_files_only": Path(name).is_dir() or not download}
    try:
        config = AutoConfig.from_pretrained(name, **here_only)
        _silence_dropout(config)
        # Loading may draw weights that the files lack, from the global generator.
        with torch.random.fork_rng(devices=[]), _without_progress():
            loaded: Any = AutoModel.from_pretrained(
                name, config=config, dtype=torch.float32, use_safetensors=True, **here_only
            )
        tokenizer: Any = AutoTokenizer.from_pretrained(name, **here_only)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        fix = "check the folder" if Path(name).exists() else "name a folder, or set download: true"
        raise MarginsError(
            f"model {name!r}", expected="a pretrained text model", received=reason, fix=fix
        ) from error
    if getattr(loaded, "pooler", None) is not None:
        loaded.pooler = None  # trained for another task, and never used here
    return PretrainedModel(
        loaded, tokenizer, config.hidden_size, config.num_hidden_layers + 1, _sha256(loaded, tokenizer)
    )


def own_pooling(name: str, *, download: bool) -> PoolingName:
    """The pooling that the model was trained with, if it comes from sentence-transformers; else the mean.

    Raises:
        MarginsError: it pools in a way, or adds layers after pooling, that is not offered here.
    """
    modules = _json(name, "modules.json", download=download)
    if modules is None:
        return "mean"
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in cast("list[dict[str, Any]]", modules)]
    unknown = [kind for kind in kinds if kind not in _KNOWN_MODULES]
    if unknown:
        raise MarginsError(
            f"model {name!r}",
            expected=f"modules among {', '.join(_KNOWN_MODULES)}",
            received=", ".join(unknown),
            fix="compute its vectors with sentence-transformers and use the encoder embeddings",
        )
    place = next((m["path"] for m, k in zip(modules, kinds, strict=True) if k == "Pooling"), None)
    settings = _json(name, f"{place}/config.json", download=download) if place else None
    if settings is None:
        return "mean"
    return _pooling_in(name, cast("dict[str, Any]", settings))


def _pooling_in(name: str, settings: dict[str, Any]) -> PoolingName:
    chosen = [key.removeprefix("pooling_mode_") for key, on in settings.items() if on is True]
    chosen = [key for key in chosen if key != "include_prompt"] or [str(settings.get("pooling_mode"))]
    if len(chosen) != 1 or chosen[0] not in _POOLING_OF:
        raise MarginsError(
            f"model {name!r}",
            expected="pooling by the mean, the first or the last token",
            received=" and ".join(chosen),
            fix="say `pooling`",
        )
    return cast("PoolingName", _POOLING_OF[chosen[0]])


def _json(name: str, file: str, *, download: bool) -> Any:
    """A JSON file of the model; None when it has none."""
    from transformers.utils.hub import cached_file

    found = cached_file(
        name,
        file,
        local_files_only=Path(name).is_dir() or not download,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else json.loads(Path(found).read_text("utf-8"))


@contextmanager
def _without_progress() -> Generator[None, None, None]:
    from transformers.utils import logging

    was_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_shown:
            logging.enable_progress_bar()


def _silence_dropout(config: Any) -> None:
    # It draws from the global generator; encoders leave out parts of the pooled embedding instead.
    for key, value in config.to_dict().items():
        if ("dropout" in key or "layerdrop" in key) and isinstance(value, float):
            setattr(config, key, 0.0)


def _sha256(network: nn.Module, tokenizer: Any) -> str:
    digest = hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode())
    for key, value in sorted(network.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
