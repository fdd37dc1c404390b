"""Models whose layers give several leaves, and one that takes token ids."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BatchEncoding, BertConfig, BertForSequenceClassification


class Recurrent(nn.Module):
    """An LSTM, of whose output and last cell the rest makes use. (N, 5, 4) -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)
        self.last = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        sequence, (_, cell) = self.lstm(x)
        return self.last(torch.cat([sequence.mean(1), cell[0]], 1)).tanh()


class Attending(nn.Module):
    """Attention, whose weights count too. (N, 5, 4) -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.last = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        value, weights = self.attention(x, x, x)
        return self.last(torch.cat([value.mean(1), weights.mean(1)], 1)).tanh()


WHOLE = {"lstm": Recurrent, "attention": Attending}


def total(attribution: Any) -> Tensor:
    """The sum over all leaves and entries of each example."""
    if isinstance(attribution, Tensor):
        return attribution.flatten(1).sum(1)
    parts = attribution.values() if isinstance(attribution, dict) else attribution
    return sum(total(part) for part in parts if part is not None)


def bert() -> tuple[BertForSequenceClassification, BatchEncoding, dict[str, Tensor]]:
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, num_labels=3,
        max_position_embeddings=12,
    )  # fmt: skip
    ids = torch.randint(3, 40, (2, 6))
    ids[0, 4:] = 0
    tokens = BatchEncoding({"input_ids": ids, "attention_mask": (ids > 0).long()})
    return BertForSequenceClassification(config).double().eval(), tokens, {"input_ids": torch.zeros_like(ids)}


BERT_LAYERS = ["bert.embeddings", "bert.embeddings.word_embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1"]
