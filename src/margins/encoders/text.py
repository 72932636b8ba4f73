"""Bags of hashed n-grams, weighted by how rare they are, summed into an embedding that is trained."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from margins.encoders.base import Dropout, Encoder
from margins.encoders.hashing import HashedTexts


class TextEncoder(Encoder[HashedTexts]):
    """An embedding bag over hashed words, word pairs and character n-grams, trained end to end.

    Use it for short and medium texts in any script without a pretrained model; word order beyond pairs is
    lost. An n-gram weighs (1 + log count) * inverse document frequency, scaled to length one a text, as
    TF-IDF does, so that the embedding starts as a random projection of a good sparse one.

    Args:
        buckets: number of hashed ids; the same as in `hash_texts`.
        width: of the embedding.
        drop_ngrams: share of n-grams left out of each training text, anew each time.
        generator: draws the first weights and the n-grams left out.

    Example:
        >>> from margins.encoders.hashing import hash_texts
        >>> texts = hash_texts(["lost card", "new card", ""], buckets=512)
        >>> encoder = TextEncoder(buckets=512, width=8, generator=torch.Generator().manual_seed(0))
        >>> encoder.fit(texts)
        >>> encoder(texts).shape
        torch.Size([3, 8])
    """

    idf: Tensor

    def __init__(
        self, *, buckets: int = 2**15, width: int = 128, drop_ngrams: float = 0.3, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.buckets, self.width = buckets, width
        # Made without numbers first: its own start would draw from the global generator.
        self.bag = nn.EmbeddingBag(buckets, width, mode="sum", device="meta").to_empty(device="cpu")
        nn.init.normal_(self.bag.weight, std=1 / math.sqrt(width), generator=generator)
        self.dropout = Dropout(drop_ngrams, generator=generator)
        self.register_buffer("idf", torch.ones(buckets))

    def fit(self, inputs: HashedTexts) -> None:
        """Inverse document frequencies, smoothed as if one more text held every n-gram."""
        documents = torch.bincount(inputs.ids, minlength=self.buckets).float()
        self.idf = (torch.log((1 + len(inputs)) / (1 + documents)) + 1).to(self.idf.device)

    def forward(self, inputs: HashedTexts) -> Tensor:
        """Embeddings [B, width]; zeros for a text without n-grams."""
        weights = (1 + inputs.counts.log()) * self.idf[inputs.ids]
        places = torch.arange(len(inputs), device=weights.device)
        row = torch.repeat_interleave(places, inputs.offsets.diff(), output_size=len(weights))
        squares = torch.zeros_like(places, dtype=weights.dtype).index_add(0, row, weights * weights)
        weights = self.dropout(weights / squares[row].sqrt())
        return self.bag(inputs.ids, inputs.offsets[:-1], per_sample_weights=weights)
