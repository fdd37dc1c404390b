"""The page on data sets: a local cluster of Ray's answers as a loop does."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import attrfn

ROWS, BATCH = 24, 6


def load() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)).eval()


class Explain:
    """As on the page."""

    def __init__(self) -> None:
        self.net = load()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        x = torch.as_tensor(batch["x"])
        found = attrfn.integrated_gradients(self.net, x, n_steps=16, target=self.net(x).argmax(1))
        return {**batch, "attribution": found.numpy()}


def images() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((ROWS, 1, 8)).astype(np.float32)


def test_an_example_is_explained_alike_in_every_batch() -> None:
    """What the cluster relies on: batches, however they are cut, are one answer."""
    explain, x = Explain(), images()
    parts = [explain({"x": part})["attribution"] for part in np.split(x, ROWS // BATCH)]
    torch.testing.assert_close(np.concatenate(parts), explain({"x": x})["attribution"], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="ray is of the extra `ray`")
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_cluster_of_two_workers_is_as_a_loop() -> None:
    import ray

    x = images()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        data = ray.data.from_numpy(list(np.split(x, ROWS // BATCH))).rename_columns({"data": "x"})
        rows = data.map_batches(Explain, batch_size=BATCH, concurrency=2).take_all()
    finally:
        ray.shutdown()
    assert len(rows) == ROWS
    found = {row["x"].tobytes(): row["attribution"] for row in rows}
    expected = Explain()({"x": x})["attribution"]
    for image, attribution in zip(x, expected, strict=True):
        torch.testing.assert_close(found[image.tobytes()], attribution, rtol=1e-4, atol=1e-6)
