"""Points whose attributions are known."""

import torch
from torch import Tensor


def points(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
