"""How to call each operation of attrfn's tables, of `torch.nn` and of `torch.nn.functional`, for the coverage tests.

A call takes (2, *shape) and answers a tensor, or several, whose first dimension is the example's.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Call = Callable[[Tensor], Any]
Case = tuple[Call, tuple[int, ...]]
TOKENS, LINE, PLANE, SPACE = (4, 6), (4, 8), (4, 6, 6), (2, 4, 4, 4)


def halves(z: Tensor) -> tuple[Tensor, Tensor]:
    a, b = z.chunk(2, -1)
    return a, b


def weight(*shape: int) -> Tensor:
    """The same constants at each call."""
    count = torch.Size(shape).numel()
    return (0.7 + torch.arange(count, dtype=torch.float64)).sin().reshape(shape)


def heads(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of two heads."""
    q, k, v = (z * s for s in (1.0, 0.7, -1.3))
    return (q.reshape(2, 2, -1, 4), k.flip(1).reshape(2, 2, -1, 4), v.roll(1, 1).reshape(2, 2, -1, 4))


def attention(**kwargs: Any) -> Call:
    return lambda z: F.scaled_dot_product_attention(*heads(z), **kwargs)


def grouped(z: Tensor) -> Tensor:
    q = z.reshape(2, 4, -1, 2)
    return F.scaled_dot_product_attention(q, q[:, :2] * 0.5, q[:, 2:].tanh(), enable_gqa=True)


SEES = torch.tensor([[True, True, False], [True, False, True], [True, True, True]])
HIDES = torch.zeros(3, 3, dtype=torch.float64).masked_fill(~SEES, -1e9)


def pools() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for dims, shape in enumerate(((4, 9), (2, 7, 7), (2, 5, 5, 5)), 1):
        name, pool = f"max_pool{dims}d", getattr(F, f"max_pool{dims}d")
        adaptive = getattr(F, f"adaptive_max_pool{dims}d")
        settings: dict[str, dict[str, Any]] = {
            "plain": {"kernel_size": 2},
            "overlapping": {"kernel_size": 3, "stride": 1},
            "padded": {"kernel_size": 3, "padding": 1},
            "ceil": {"kernel_size": 2, "ceil_mode": True},
            "dilated": {"kernel_size": 2, "dilation": 2, "stride": 1},
            "indices": {"kernel_size": 2, "return_indices": True},
        }
        for label, given in settings.items():
            found[f"{name}, {label}"] = (lambda z, p=pool, g=given: p(z, **g), shape)
        found[f"{name}, positional"] = (lambda z, p=pool: p(z, 3, 2, 1, 1, True), shape)
        module = getattr(nn, f"MaxPool{dims}d")(2, return_indices=True)
        found[f"{name}, module with indices"] = (lambda z, m=module: m(z)[0], shape)
        for full in (name, f"adaptive_{name}"):
            both = getattr(F, f"{full}_with_indices")
            found[f"{full}_with_indices"] = (lambda z, p=both: p(z, 2)[0], shape)
        found[f"adaptive_{name}, plain"] = (lambda z, p=adaptive: p(z, 2), shape)
        found[f"adaptive_{name}, indices"] = (lambda z, p=adaptive: p(z, 2, return_indices=True), shape)
    return found


OPERATIONS: dict[str, Case] = {
    # products
    "mul": (lambda z: z * z.roll(1, 1), TOKENS),
    "mul, in place": (lambda z: z.clone().mul_(z.tanh()), TOKENS),
    "mul, operator in place": (lambda z: z.sin().__imul__(z), TOKENS),
    "mul, broadcast": (lambda z: z * z[:, :1] * z[..., :1], TOKENS),
    "mul, torch": (lambda z: torch.multiply(z, torch.mul(z, z)), TOKENS),
    "div": (lambda z: z / (1 + z.flip(1) ** 2), TOKENS),
    "div, in place": (lambda z: z.clone().div_(2 + z.flip(1).sin()), TOKENS),
    "div, across a pole": (lambda z: z / z.flip(1), TOKENS),
    "div, by itself alone": (lambda z: 1.5 / (2 + z.sin()), TOKENS),
    "div, torch": (lambda z: torch.true_divide(z, torch.exp(z)), TOKENS),
    "matmul": (lambda z: z @ z.mT, TOKENS),
    "matmul, method": (lambda z: z.matmul(z.transpose(1, 2).exp()), TOKENS),
    "matmul, constant": (lambda z: weight(3, 4) @ z.tanh(), TOKENS),
    "bmm": (lambda z: torch.bmm(z, z.transpose(1, 2)), TOKENS),
    "mm": (lambda z: torch.stack([torch.mm(r, r.T) for r in z]), TOKENS),
    "mv": (lambda z: torch.stack([torch.mv(r, r[0]) for r in z]), TOKENS),
    "dot": (lambda z: torch.stack([torch.dot(r[0], r[1]) for r in z])[:, None], TOKENS),
    "vdot": (lambda z: torch.stack([torch.vdot(r[0], r[1]) for r in z])[:, None], TOKENS),
    "inner": (lambda z: torch.stack([torch.inner(r, r) for r in z]), TOKENS),
    "outer": (lambda z: torch.stack([torch.outer(r[0], r[1]) for r in z]), TOKENS),
    "outer, ger": (lambda z: torch.stack([torch.ger(r[0], r[1]) for r in z]), TOKENS),
    "kron": (lambda z: torch.stack([torch.kron(r[0], r[1]) for r in z]), TOKENS),
    "cross": (lambda z: torch.cross(z[..., :3], z[..., 3:], dim=-1), TOKENS),
    "linalg_cross": (lambda z: torch.linalg.cross(z[..., :3], z[..., 3:]), TOKENS),
    "linalg_vecdot": (lambda z: torch.linalg.vecdot(z, z.exp()), TOKENS),
    "tensordot": (lambda z: torch.stack([torch.tensordot(r, r, dims=([0], [0])) for r in z]), TOKENS),
    "tensordot, constant": (lambda z: torch.tensordot(z, weight(6, 2), 1), TOKENS),
    "einsum": (lambda z: torch.einsum("nij,nkj->nik", z, z.sin()), TOKENS),
    "einsum, three": (lambda z: torch.einsum("ni,nj,nk->nijk", z[:, 0], z[:, 1], z[:, 2]), TOKENS),
    "einsum, one constant": (lambda z: torch.einsum("nij,jk,nkl->nil", z, weight(6, 4), z.cos()), TOKENS),
    "einsum, four": (lambda z: torch.einsum("ni,ni,ni,ni->n", *z.unbind(1)), TOKENS),
    "einsum, a list": (lambda z: torch.einsum("nij,nkj->nik", [z, z.sin()]), TOKENS),
    "addmm": (lambda z: torch.stack([torch.addmm(r @ r.T, r, r.T, beta=0.5, alpha=2) for r in z]), TOKENS),
    "addmm, by keyword": (
        lambda z: torch.stack([torch.addmm(input=r @ r.T, mat1=r, mat2=r.T) for r in z]),
        TOKENS,
    ),
    "addmv": (lambda z: torch.stack([torch.addmv(r[:, 0], r, r[0]) for r in z]), TOKENS),
    "addmv, by keyword": (lambda z: torch.stack([torch.addmv(r[:, 0], mat=r, vec=r[0]) for r in z]), TOKENS),
    "addr, by keyword": (lambda z: torch.stack([torch.addr(r, vec1=r[:, 0], vec2=r[0]) for r in z]), TOKENS),
    "addbmm, by keyword": (
        lambda z: torch.stack([torch.addbmm(r @ r.T, batch1=r[None], batch2=r.T[None]) for r in z]),
        TOKENS,
    ),
    "baddbmm, by keyword": (lambda z: torch.baddbmm(z @ z.mT, batch1=z, batch2=z.mT.tanh()), TOKENS),
    "addcmul, by keyword": (lambda z: torch.addcmul(z, tensor1=z.sin(), tensor2=z.roll(1, 2)), TOKENS),
    "addcdiv, by keyword": (lambda z: torch.addcdiv(z, tensor1=z.sin(), tensor2=2 + z.roll(1, 2).cos()), TOKENS),
    "addr": (lambda z: torch.stack([torch.addr(r, r[:, 0], r[0], alpha=2) for r in z]), TOKENS),
    "addbmm": (lambda z: torch.stack([torch.addbmm(r @ r.T, r[None], r.T[None]) for r in z]), TOKENS),
    "baddbmm": (lambda z: torch.baddbmm(z @ z.mT, z, z.mT.tanh(), alpha=0.5), TOKENS),
    "addcmul": (lambda z: torch.addcmul(z, z.sin(), z.roll(1, 2), value=0.5), TOKENS),
    "addcdiv": (lambda z: torch.addcdiv(z, z.sin(), 2 + z.roll(1, 2).cos(), value=0.5), TOKENS),
    "lerp": (lambda z: torch.lerp(z, z.roll(1, 1), z.sigmoid()), TOKENS),
    "lerp, number": (lambda z: z.tanh().lerp(z, 0.3), TOKENS),
    "linear": (lambda z: torch.stack([F.linear(r, r.sin(), r[:, 0]) for r in z]), TOKENS),
    "bilinear": (
        lambda z: torch.stack([F.bilinear(r, r.sin(), r[:, :1, None] * r[0, :, None] * r[0]) for r in z]),
        TOKENS,
    ),
    "conv1d": (lambda z: torch.stack([F.conv1d(r[None], r[None, :, :3]) for r in z]), LINE),
    "conv2d": (lambda z: torch.stack([F.conv2d(r[None], r[None, :, :2, :2], padding=1) for r in z]), PLANE),
    "conv3d": (lambda z: torch.stack([F.conv3d(r[None], r[None, :, :2, :2, :2]) for r in z]), SPACE),
    "conv_transpose1d": (lambda z: torch.stack([F.conv_transpose1d(r[None], r[:, None, :3]) for r in z]), LINE),
    "conv_transpose2d": (lambda z: torch.stack([F.conv_transpose2d(r[None], r[:, None, :2, :2]) for r in z]), PLANE),
    "conv_transpose3d": (
        lambda z: torch.stack([F.conv_transpose3d(r[None], r[:, None, :2, :2, :2]) for r in z]),
        SPACE,
    ),
    "glu": (lambda z: F.glu(z), TOKENS),
    "glu, dim": (lambda z: F.glu(z, 1), TOKENS),
    "pow": (lambda z: z.exp() ** z.flip(1), TOKENS),
    # attention
    "scaled_dot_product_attention": (attention(), (3, 8)),
    "scaled_dot_product_attention, scale": (attention(scale=2.0), (3, 8)),
    "scaled_dot_product_attention, causal": (attention(is_causal=True), (3, 8)),
    "scaled_dot_product_attention, mask": (attention(attn_mask=SEES), (3, 8)),
    "scaled_dot_product_attention, bias": (attention(attn_mask=HIDES), (3, 8)),
    "scaled_dot_product_attention, groups": (grouped, (3, 8)),
    # norms and softmaxes
    "softmax": (lambda z: torch.softmax(3 * z, -1), TOKENS),
    "softmax, F": (lambda z: F.softmax(3 * z, dim=1), TOKENS),
    "softmax, masked": (lambda z: z[..., :3].masked_fill(SEES.repeat(2, 1)[:4] < 1, -torch.inf).softmax(-1), TOKENS),
    "softmax, huge and masked": (
        lambda z: torch.cat([400 * z - 50, torch.full_like(z[..., :2], -1e9)], -1).softmax(-1),
        TOKENS,
    ),
    "softmax, huge logits": (lambda z: (500 * z).softmax(-1), TOKENS),
    "log_softmax": (lambda z: z.log_softmax(-1), TOKENS),
    "log_softmax, huge logits": (lambda z: (2000 * z).log_softmax(-1), TOKENS),
    "log_softmax, F": (lambda z: F.log_softmax(z, 1), TOKENS),
    "logsumexp": (lambda z: z.logsumexp(-1), TOKENS),
    "logsumexp, dims": (lambda z: torch.logsumexp(z, (1, 2), keepdim=True), TOKENS),
    "logaddexp": (lambda z: torch.logaddexp(z, z.flip(1)), TOKENS),
    "layer_norm": (lambda z: F.layer_norm(z, (6,), weight(6), weight(6)), TOKENS),
    "layer_norm, two": (lambda z: F.layer_norm(z, z.shape[1:]), TOKENS),
    "rms_norm": (lambda z: F.rms_norm(z, (6,), weight(6), 1e-3), TOKENS),
    "rms_norm, eps": (lambda z: F.rms_norm(z, (6,)), TOKENS),
    "group_norm": (lambda z: F.group_norm(z, 2, weight(4), weight(4)), PLANE),
    "instance_norm": (lambda z: F.instance_norm(z, weight=weight(4), bias=weight(4)), PLANE),
    "batch_norm": (lambda z: F.batch_norm(z, weight(4), weight(4).exp(), weight(4), weight(4)), PLANE),
    "cosine_similarity": (lambda z: F.cosine_similarity(*halves(z), dim=-1), TOKENS),
    "pairwise_distance": (lambda z: F.pairwise_distance(*halves(z)), TOKENS),
    "var": (lambda z: z.var(-1), TOKENS),
    "var, correction": (lambda z: torch.var(z, (1, 2), correction=0, keepdim=True), TOKENS),
    "std": (lambda z: z.std(-1, unbiased=False), TOKENS),
    "norm": (lambda z: z.norm(dim=-1), TOKENS),
    "norm, p": (lambda z: z.norm(3, -1), TOKENS),
    "norm, 1": (lambda z: torch.norm(z, p=1, dim=1), TOKENS),
    "linalg_norm": (lambda z: torch.linalg.norm(z, dim=-1), TOKENS),
    "linalg_vector_norm": (lambda z: torch.linalg.vector_norm(z, dim=-1), TOKENS),
    "linalg_vector_norm, inf": (lambda z: torch.linalg.vector_norm(z, torch.inf, dim=-1), TOKENS),
    "hypot": (lambda z: torch.hypot(z, z.flip(1)), TOKENS),
    # selections
    **pools(),
    "amax": (lambda z: z.amax(-1), TOKENS),
    "amax, dims": (lambda z: z.amax((1, 2), keepdim=True), TOKENS),
    "amin": (lambda z: torch.amin(z, dim=1, keepdim=True), TOKENS),
    "max": (lambda z: torch.stack([r.max() for r in z])[:, None], TOKENS),
    "max, along": (lambda z: z.max(-1)[0], TOKENS),
    "max, named": (lambda z: torch.max(z, dim=1, keepdim=True).values, TOKENS),
    "max, of two": (lambda z: torch.max(z, z.flip(1)), TOKENS),
    "min": (lambda z: z.min(dim=-1)[0], TOKENS),
    "min, named": (lambda z: z.min(-1).values, TOKENS),
    "min, of two": (lambda z: torch.min(z, z[:, :1]), TOKENS),
    "maximum": (lambda z: torch.maximum(z, z.flip(1)), TOKENS),
    "minimum": (lambda z: z.minimum(torch.tensor(0.1)), TOKENS),
}
"""A call of each operation with a multiplier; of one with several, "name, which"."""
