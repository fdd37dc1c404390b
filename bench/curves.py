"""What do deletion and insertion curves cost beside the passes that they are made of?

16 images, 100 steps: 101 outputs of each image, of masks of its own. The floor is a loop by hand over batches of masked
images, as many masks in a pass as are fastest. Quantus' PixelFlipping of the digits, in 128 steps of two pixels, is
shown: it answers the curves of one method at a time, from a model that it calls with arrays.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import attrfn
from bench import floors
from bench.digits import learned
from bench.harness import Row, Setting, Work, compared, near, quickest
from bench.models import frozen, resnet18

FOLDS = (4, 16)


def contenders(setting: Setting, net: nn.Module, x: Tensor, target: list[int], steps: int) -> dict[str, Work]:
    pixels = int(x.shape[-1] * x.shape[-2])
    groups = torch.arange(pixels).reshape(1, *x.shape[-2:])
    by_hand, where = frozen(net), torch.tensor(target)
    scores = setting.randn(len(x), 1, *x.shape[-2:]).expand_as(x)

    def curve(fold: int) -> Tensor:
        places = scores[:, 0].flatten(1).sort(dim=1, descending=True, stable=True).indices.argsort(1)
        counts = torch.tensor([round(k * pixels / steps) for k in range(steps + 1)])
        gone = places >= counts[:, None, None]
        found = [
            floors.values_of_masks(by_hand, x, torch.zeros_like(x), z, groups, fold)[:, torch.arange(len(x)), where]
            for z in (gone, ~gone)
        ]
        return torch.cat(found).T

    def ours() -> Tensor:
        how = {"groups": groups, "n_steps": steps, "target": target}
        return torch.cat([c(net, scores, x, 0.0, **how) for c in (attrfn.deletion, attrfn.insertion)], 1)

    return {"attrfn": ours, "floor": quickest(setting, [lambda k=k: curve(k) for k in FOLDS])}


def flipping(setting: Setting, net: nn.Module, x: Tensor, target: list[int]) -> dict[str, Work]:
    """Deletion alone, beside Quantus', where it is installed."""
    scores, steps = setting.randn(*x.shape), setting.pick(128, 8)
    groups = torch.arange(x[0].numel()).reshape(x.shape[-2:])
    how = {"groups": groups, "n_steps": steps, "target": target}
    given: dict[str, Work] = {"attrfn": lambda: attrfn.deletion(net, scores, x, 0.0, **how)[:, 1:]}
    try:
        import quantus
    except ImportError:
        return given
    metric = quantus.PixelFlipping(
        features_in_step=x[0].numel() // steps,
        perturb_baseline="black",
        disable_warnings=True,
        return_auc_per_sample=False,
    )
    arrays = {"x_batch": x.numpy(), "y_batch": torch.tensor(target).numpy(), "a_batch": scores.numpy()}

    def theirs() -> Tensor:
        return torch.tensor(metric(net, **arrays, device="cpu", softmax=False))

    return {**given, "quantus": theirs}


def rows(setting: Setting) -> Iterator[Row]:
    yield from of_digits(setting)
    yield from of_resnet(setting)


def of_digits(setting: Setting) -> Iterator[Row]:
    steps, it = setting.pick(100, 4), learned(setting, "GELU", setting.pick(16, 2))
    given = contenders(setting, it.net, it.x, it.target, steps)
    yield compared(setting, "deletion and insertion, 100 steps, 16 images", given, near(1.1), model="digits CNN")
    given = flipping(setting, it.net, it.x, it.target)
    if len(given) > 1:
        yield compared(setting, "deletion of two pixels at a time, 16 images", given, model="digits CNN")


def of_resnet(setting: Setting) -> Iterator[Row]:
    steps, n = setting.pick(100, 4), setting.pick(16, 2)
    net, x = resnet18(setting), setting.randn(n, 3, *[setting.pick(56, 32)] * 2)
    given = contenders(setting, net, x, [1] * n, steps)
    work = "deletion and insertion, 100 steps, 16 images"
    yield compared(setting, work, given, near(1.1), model="ResNet-18, 56 pixels")
