"""What `vmap` has no rule for is written out in every pass: the same numbers, and no word of torch's on performance."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn
from attrfn._model.kernels.fallbacks import IN_PLACE, WITHOUT_RULES
from attrfn._model.run import Pass

SHAPE = (4, 6)
MASK = torch.arange(24).reshape(SHAPE) % 3 == 0
WEIGHT = (torch.arange(24, dtype=torch.float64).reshape(SHAPE) + 0.3).cos() + 1.5
LENGTHS = torch.tensor([6, 5, 4, 2])
COLUMNS = torch.tensor([2, 0, 5])


def in_place(write: Callable[[Tensor], object]) -> Callable[[Tensor], Tensor]:
    """The tensor after a write into a copy of it."""

    def written(z: Tensor) -> Tensor:
        copy = z * 1.0
        write(copy)
        return copy * 1.0

    return written


CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "windows side by side": lambda z: z.unfold(1, 2, 2).tanh(),
    "windows that overlap": lambda z: z.unfold(-1, 3, 1).tanh(),
    "windows with gaps": lambda z: z.unfold(0, 1, 2).tanh(),
    "windows, by keywords": lambda z: z.unfold(dimension=1, size=4, step=2).tanh(),
    "windows of windows": lambda z: z.unfold(0, 2, 1).unfold(1, 3, 3),
    "windows of images": lambda z: F.unfold(z[None, None], 2),
    "mean of a line": lambda z: F.adaptive_avg_pool1d(z, 1),
    "means of a line": lambda z: F.adaptive_avg_pool1d(z, 4),
    "mean of a plane": lambda z: nn.AdaptiveAvgPool2d((1, 1))(z[None]),
    "means of a plane": lambda z: F.adaptive_avg_pool2d(z[None], (2, 3)),
    "mean of a space": lambda z: F.adaptive_avg_pool3d(z.reshape(1, 2, 2, 6), 1),
    "fill with a tensor": lambda z: z.masked_fill(MASK, z.sum()),
    "fill with a number": lambda z: z.masked_fill(MASK, 2.0),
    "fill in place with a tensor": in_place(lambda z: z.masked_fill_(MASK, z.sum())),
    "scatter in place": in_place(lambda z: z.scatter_(1, COLUMNS.expand(4, 3), z[:, :3].tanh())),
    "scatter in place, by keywords": in_place(
        lambda z: z.scatter_(dim=1, index=COLUMNS.expand(4, 3), src=z[:, :3] * 2)
    ),
    "scatter a number in place": in_place(lambda z: z.scatter_(1, COLUMNS.expand(4, 3), 2.0)),
    "bilinear": lambda z: F.bilinear(z, z.tanh(), torch.ones(3, 6, 6).double().cumsum(1) / 9, torch.ones(3).double()),
    "put": lambda z: z.put(torch.tensor([0, -1, 5]), z[0, :3] * 2),
    "put and add": lambda z: z.put(torch.tensor([0, 0, 5]), z[0, :3] * 2, True),
    "take": lambda z: torch.take(z, torch.tensor([[0, -1], [7, 7]])),
    "distances of pairs": lambda z: F.pdist(z),
    "add a product in place": in_place(lambda z: z.addcmul_(z, WEIGHT, value=0.5)),
    "add a quotient in place": in_place(lambda z: z.addcdiv_(z, WEIGHT)),
    "add a matrix product in place": in_place(lambda z: z.addmm_(WEIGHT[:, :4], z.tanh())),
    "clamp in place": in_place(lambda z: z.clamp_(WEIGHT - 1, WEIGHT)),
    "running sum in place": in_place(lambda z: z.cumsum_(1)),
    "half way in place": in_place(lambda z: z.lerp_(WEIGHT, WEIGHT / 4)),
    "lower part in place": in_place(lambda z: z.tril_()),
    "upper part in place": in_place(lambda z: z.triu_(1)),
    "square in place": in_place(lambda z: z.square_()),
    "power in place": in_place(lambda z: z.abs_().pow_(WEIGHT)),
    "remainder in place": in_place(lambda z: z.remainder_(WEIGHT)),
    "columns in place": in_place(lambda z: z.index_copy_(1, COLUMNS, z[:, :3].tanh())),
    "packed": lambda z: nn.utils.rnn.pack_padded_sequence(z[:, :, None], LENGTHS, batch_first=True).data.tanh(),
    "packed and padded": lambda z: nn.utils.rnn.pad_packed_sequence(
        nn.utils.rnn.pack_padded_sequence(z.t()[:, [3, 0, 2, 1], None], LENGTHS), True, 0.5, 7
    )[0].tanh(),
    "rolled": lambda z: z.roll((1, 2), (0, 1)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_same_numbers_without_a_word(call: Callable[[Tensor], Tensor]) -> None:
    x = torch.rand(3, *SHAPE, dtype=torch.float64) + 0.1

    def score(z: Tensor) -> Tensor:
        with Pass():
            out = call(z)
        return (out * torch.arange(1.0, out.numel() + 1).reshape(out.shape)).sum()

    expected = torch.stack([torch.func.grad(lambda z: score(z))(z) for z in x])
    plain = torch.stack([call(z) for z in x])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = torch.func.vmap(torch.func.grad(score))(x)
        values = torch.func.vmap(lambda z: ruled(call, z))(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(values, plain)
    leaf = x.clone().requires_grad_()
    total = sum((call(z) * torch.arange(1.0, call(z).numel() + 1).reshape(call(z).shape)).sum() for z in leaf)
    assert isinstance(total, Tensor)
    torch.testing.assert_close(found, torch.autograd.grad(total, leaf)[0])


def ruled(call: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    with Pass():
        return call(z)


def test_every_operation_in_place_is_one_of_torchs() -> None:
    assert all(hasattr(Tensor, name) and hasattr(Tensor, name[:-1]) for name in IN_PLACE)
    assert set(IN_PLACE) < set(WITHOUT_RULES)


def test_windows_that_cannot_be_are_torchs_own_error() -> None:
    with pytest.raises(RuntimeError, match="maximum size for tensor at dimension 1 is 6 but size is 7"):
        attrfn.integrated_gradients(lambda z: z.unfold(1, 7, 1).sum((1, 2)), torch.ones(2, 6))


def test_what_has_no_rule_still_is_run_row_by_row_in_silence() -> None:
    """An operation that is not written out costs a pass a row, and is right."""

    def model(z: Tensor) -> Tensor:
        return torch.special.log_ndtr(z).sum(1)

    x = torch.rand(2, 3, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = attrfn.integrated_gradients(model, x, n_steps=3)
    torch.testing.assert_close(found, attrfn.integrated_gradients(model, x, n_steps=3, vectorize=False))
    with pytest.warns(UserWarning, match="performance drop"):  # a caller's own is told as ever
        torch.func.vmap(torch.special.log_ndtr)(x)


# ---------------------------------------------------------------- precision, and nested tensors


NORMS: dict[str, nn.Module] = {
    "layer": nn.LayerNorm(6),
    "no bias": nn.LayerNorm(6, bias=False),
    "group": nn.GroupNorm(2, 4),
    "instance": nn.InstanceNorm1d(4, affine=True),
    "rms": nn.RMSNorm(6),
}


@pytest.mark.parametrize("how", [{}, {"vectorize": False}], ids=str)
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")  # torch's, of RMSNorm
def test_float32_norms_in_a_bfloat16_model(norm: nn.Module, how: dict[str, bool]) -> None:
    first, last = nn.Linear(6, 6).bfloat16(), nn.Linear(24, 2).bfloat16()
    dtypes = set[torch.dtype]()

    def model(x: Tensor) -> Tensor:
        h = norm(first(x))
        dtypes.add(h.dtype)
        return last(h.to(torch.bfloat16).tanh().flatten(1))

    x = torch.randn(2, 4, 6).bfloat16()
    plain = norm(first(x)).dtype
    found = attrfn.integrated_gradients(model, x, n_steps=4, target=1, **how)
    wide = copy.deepcopy(nn.Sequential(first, norm, nn.Tanh(), nn.Flatten(), last)).float()
    expected = attrfn.integrated_gradients(wide, x.float(), n_steps=4, target=1)
    assert (found - expected).norm() < 0.05 * expected.norm()
    assert dtypes == {plain}


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_norms_under_autocast(norm: nn.Module, vectorize: bool) -> None:
    net = nn.Sequential(nn.Linear(6, 6), norm, nn.Tanh(), nn.Flatten(), nn.Linear(24, 2)).float()
    x = torch.randn(2, 4, 6)
    expected = attrfn.integrated_gradients(net, x, n_steps=4, target=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = attrfn.integrated_gradients(net, x, n_steps=4, target=1, vectorize=vectorize)
        once = attrfn.layer_conductance(net, "0", x, n_steps=4, target=1, vectorize=vectorize)
    assert (found - expected).norm() < 0.1 * expected.norm()
    assert once.isfinite().all()


@pytest.mark.parametrize("grad", [True, False])
def test_a_transformer_encoder_makes_no_nested_tensor(grad: bool) -> None:
    """With frozen parameters too, and where no gradient is recorded."""
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    encoder.requires_grad_(grad)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])

    def model(x: Tensor) -> Tensor:
        return encoder(x, src_key_padding_mask=padding)[:, 0]

    x = torch.randn(2, 5, 8)
    found = attrfn.integrated_gradients(model, x, n_steps=3, target=1)
    torch.testing.assert_close(found, attrfn.integrated_gradients(model, x, n_steps=3, target=1, vectorize=False))
    place = attrfn.at(encoder.layers[1], "input", index=0)
    assert attrfn.layer_activation(model, place, x).is_nested is False
    assert attrfn.layer_deep_lift(model, place, x, target=1).shape == x.shape
    attrfn.over_targets(lambda t: attrfn.saliency(model, x, t), range(2))
