"""How to call operations of ranks, groups, systems and jumps, and what is written as others; see `operations`."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.tables.operations import TOKENS, Call, Case, halves, weight

GROUPS = torch.tensor([2, 0, 2, 2])
LENGTHS = torch.tensor([1, 3])
SHARES = torch.tensor([0.25, 0.5, 0.8], dtype=torch.float64)
SPARSE = weight(3, 4).relu().to_sparse()


def each(f: Call) -> Call:
    """By example, for operations that know no batch."""

    def call(z: Tensor) -> Any:
        found = [f(row) for row in z]
        return torch.stack(found) if isinstance(found[0], Tensor) else tuple(map(torch.stack, zip(*found, strict=True)))

    return call


def grouped(reduce: str, include_self: bool) -> Call:
    index = GROUPS[:, None].expand(4, 5)
    return each(lambda r: (2 * r[:3]).scatter_reduce(0, index, r, reduce, include_self=include_self))


def matrices(z: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices that are far from singular, and right sides."""
    return z[..., :4] + 9 * torch.eye(4, dtype=z.dtype), z[..., 4:].sin()


def solved(left: bool) -> Call:
    def call(z: Tensor) -> Tensor:
        a, b = matrices(z)
        return torch.linalg.solve(a, b if left else b.mT, left=left)

    return call


def solved_triangle(**kwargs: bool) -> Call:
    def call(z: Tensor) -> Tensor:
        a, b = matrices(z)
        return torch.linalg.solve_triangular(a, b if kwargs.get("left", True) else b.mT, **kwargs)

    return call


def along(name: str, *args: Any, **kwargs: Any) -> Case:
    return lambda z: getattr(torch, name)(z, *args, **kwargs), TOKENS


RANKS: dict[str, Case] = {
    "sort": along("sort"),
    "sort, dim": along("sort", 1, True),
    "sort, stable": along("sort", stable=True, dim=1),
    "topk": along("topk", 2),
    "topk, smallest": along("topk", 3, 1, False),
    "topk, keywords": along("topk", k=1, dim=1, sorted=False),
    "kthvalue": along("kthvalue", 2),
    "kthvalue, dim": along("kthvalue", 3, 1, True),
    "median": along("median", 1),
    "median, keepdim": along("median", dim=-1, keepdim=True),
    "median, of all": (each(lambda r: r.median()[None]), TOKENS),
    "msort": (each(torch.msort), TOKENS),
    "quantile": along("quantile", 0.3, -1),
    "quantile, several": (each(lambda r: torch.quantile(r, SHARES, 1)), TOKENS),
    "quantile, of all": (each(lambda r: torch.quantile(r, 0.5)[None]), TOKENS),
    "quantile, midpoint": along("quantile", 0.3, 1, True, interpolation="midpoint"),
    "cummax": along("cummax", 1),
    "cummin": along("cummin", dim=-1),
    "aminmax": along("aminmax", dim=-1),
    "aminmax, of all": (each(lambda r: tuple(part[None] for part in torch.aminmax(r))), TOKENS),
    **{f"scatter_reduce, {r}": (grouped(r, True), (4, 5)) for r in ("sum", "mean", "amax", "amin")},
    **{f"scatter_reduce, {r} of others": (grouped(r, False), (4, 5)) for r in ("sum", "mean", "amax", "amin")},
    "scatter_reduce, keywords": (
        each(lambda r: r.scatter_reduce(0, src=r.sin(), index=GROUPS[:, None].expand(4, 5), reduce="amax")),
        (4, 5),
    ),
    "scatter_reduce, a part": (
        each(lambda r: r.scatter_reduce(1, GROUPS[:, None], r.roll(1, 0), "amax", include_self=True)),
        (4, 5),
    ),
    **{
        f"index_reduce, {r}": (lambda z, r=r: (2 * z).index_reduce(1, GROUPS, z, r, include_self=False), TOKENS)
        for r in ("mean", "amax", "amin")
    },
    **{
        f"segment_reduce, {r}": (each(lambda row, r=r: torch.segment_reduce(row, r, lengths=LENGTHS)), TOKENS)
        for r in ("sum", "mean", "max", "min")
    },
}

ALGEBRA: dict[str, Case] = {
    "linalg_solve": (solved(True), TOKENS),
    "linalg_solve, right": (solved(False), TOKENS),
    "linalg_solve, of vectors": (lambda z: torch.linalg.solve(matrices(z)[0], z[..., 0]), TOKENS),
    "linalg_solve_triangular": (solved_triangle(upper=True), TOKENS),
    "linalg_solve_triangular, lower": (solved_triangle(upper=False), TOKENS),
    "linalg_solve_triangular, ones": (solved_triangle(upper=False, unitriangular=True), TOKENS),
    "linalg_solve_triangular, right": (solved_triangle(upper=True, left=False), TOKENS),
    "linalg_inv": (lambda z: torch.linalg.inv(matrices(z)[0]), TOKENS),
    "linalg_inv, inverse": (lambda z: matrices(z)[0].inverse(), TOKENS),
    "_sparse_mm": (each(lambda r: torch.sparse.mm(SPARSE, r)), TOKENS),
    "matmul, sparse": (each(lambda r: SPARSE @ r.tanh()), TOKENS),
    "_sparse_addmm": (each(lambda r: torch.sparse.addmm(r[:3], SPARSE, r.sin(), beta=0.5, alpha=2)), TOKENS),
    "prod": along("prod", 1),
    "prod, of all": (each(lambda r: r.prod()[None]), TOKENS),
    "prod, keepdim": along("prod", dim=-1, keepdim=True),
    "cumprod": along("cumprod", 1),
    "trapezoid": (lambda z: torch.trapezoid(z.sin(), z, dim=-1), TOKENS),
    "trapezoid, of one line": (each(lambda r: torch.trapz(r, r[0].sinh())), TOKENS),
    "trapezoid, dx": (lambda z: torch.trapezoid(z, dx=0.5, dim=1), TOKENS),
    "cumulative_trapezoid": (lambda z: torch.cumulative_trapezoid(z.sin(), z), TOKENS),
    "var_mean": along("var_mean", -1),
    "std_mean": along("std_mean", -1, correction=0),
    "linalg_norm, columns": (lambda z: torch.linalg.norm(z, 1, dim=(1, 2)), TOKENS),
    "linalg_norm, rows": (lambda z: torch.linalg.norm(z, torch.inf, (1, 2), keepdim=True), TOKENS),
    "linalg_norm, smallest": (lambda z: torch.linalg.norm(z, -1, dim=(2, 1)), TOKENS),
    "linalg_norm, fro": (lambda z: torch.linalg.norm(z, "fro", dim=(1, 2)), TOKENS),
    "linalg_norm, of all": (each(lambda r: torch.linalg.norm(r)[None]), TOKENS),
    "linalg_norm, a matrix": (each(lambda r: torch.linalg.norm(r, 1)[None]), TOKENS),
    "linalg_norm, 0": (lambda z: torch.linalg.norm(z.relu(), 0, dim=-1), TOKENS),
    "linalg_matrix_norm": (lambda z: torch.linalg.matrix_norm(z), TOKENS),
    "linalg_matrix_norm, rows": (lambda z: torch.linalg.matrix_norm(z, ord=torch.inf), TOKENS),
    "dist": (each(lambda r: torch.dist(r[0], r[1], 3)[None]), TOKENS),
    "cdist": (lambda z: torch.cdist(z, z.flip(2)[:, :3]), TOKENS),
    "cdist, itself": (lambda z: torch.cdist(z, z), TOKENS),
    "cdist, p": (lambda z: torch.cdist(z, z[:, :2].sin(), p=1.0), TOKENS),
    "pdist": (each(F.pdist), TOKENS),
    # jumps
    "floor_divide": (lambda z: torch.floor_divide(5 * z, z.flip(1)), TOKENS),
    "floor_divide, number": (lambda z: 5 * z // 2, TOKENS),
    "floor_divide, of a number": (lambda z: 5 // z, TOKENS),
    "remainder": (lambda z: torch.remainder(5 * z, z.flip(1)), TOKENS),
    "remainder, number": (lambda z: z % 0.3, TOKENS),
    "remainder, of a number": (lambda z: 5 % z, TOKENS),
    "remainder, constant": (lambda z: z % weight(6), TOKENS),
    "fmod": (lambda z: torch.fmod(5 * z, z.flip(1)), TOKENS),
    "fmod, number": (lambda z: z.clone().fmod_(0.3), TOKENS),
    "div, floor": (lambda z: torch.div(5 * z, z.flip(1), rounding_mode="floor"), TOKENS),
    "div, trunc": (lambda z: torch.div(5 * z, 2, rounding_mode="trunc"), TOKENS),
    "div, floor of a constant": (lambda z: torch.div(z, weight(6), rounding_mode="floor"), TOKENS),
}

INDEX, SIGN = torch.tensor([1, 0, 5, -100]), torch.tensor([1.0, -1.0, 1.0, 1.0])
FIXED = weight(4, 6)
SOFT = FIXED.softmax(-1)
BEFORE: dict[str, Call] = {"binary_cross_entropy": torch.sigmoid, "kl_div": lambda z: z.log_softmax(-1)}


def lost(name: str, *others: Any, **kwargs: Any) -> Case:
    """A loss of each example."""
    before = BEFORE.get(name, torch.clone)
    return each(lambda r: getattr(F, name)(before(r), *others, **kwargs).reshape(-1)), TOKENS


LOSSES: dict[str, Case] = {
    "mse_loss": lost("mse_loss", FIXED),
    "mse_loss, none": lost("mse_loss", FIXED, reduction="none"),
    "mse_loss, weight": lost("mse_loss", FIXED, weight=SOFT),
    "mse_loss, two": (each(lambda r: F.mse_loss(*halves(r), reduction="sum")[None]), TOKENS),
    "l1_loss": lost("l1_loss", FIXED, reduction="sum"),
    "huber_loss": lost("huber_loss", FIXED, delta=0.5),
    "smooth_l1_loss": lost("smooth_l1_loss", FIXED, beta=0.3),
    "smooth_l1_loss, 0": lost("smooth_l1_loss", FIXED, beta=0.0),
    "soft_margin_loss": lost("soft_margin_loss", FIXED.sign()),
    "hinge_embedding_loss": lost("hinge_embedding_loss", FIXED.sign(), 0.5),
    "margin_ranking_loss": (each(lambda r: F.margin_ranking_loss(r[:, 0], r[:, 1], SIGN, 0.2)[None]), TOKENS),
    "cosine_embedding_loss": (each(lambda r: F.cosine_embedding_loss(r, r.flip(0), SIGN, -0.5)[None]), TOKENS),
    "kl_div": lost("kl_div", SOFT, reduction="batchmean"),
    "kl_div, log": lost("kl_div", SOFT.log(), reduction="sum", log_target=True),
    "kl_div, both": (each(lambda r: F.kl_div(FIXED, r.softmax(-1), reduction="sum")[None]), TOKENS),
    "binary_cross_entropy": lost("binary_cross_entropy", SOFT, weight=SOFT),
    "binary_cross_entropy_with_logits": lost("binary_cross_entropy_with_logits", SOFT),
    "binary_cross_entropy_with_logits, weights": lost(
        "binary_cross_entropy_with_logits", SOFT, SOFT, pos_weight=torch.tensor(3.0)
    ),
    "nll_loss": lost("nll_loss", INDEX),
    "nll_loss, weight": lost("nll_loss", INDEX, weight=SOFT[0], reduction="sum"),
    "cross_entropy": lost("cross_entropy", INDEX),
    "cross_entropy, none": lost("cross_entropy", INDEX, reduction="none"),
    "cross_entropy, smoothing": lost("cross_entropy", INDEX, SOFT[0], label_smoothing=0.1),
    "cross_entropy, shares": lost("cross_entropy", SOFT, weight=SOFT[0], label_smoothing=0.1),
    "cross_entropy, places": (lambda z: F.cross_entropy(z, GROUPS[:2, None].expand(2, 6), reduction="none"), TOKENS),
    "cross_entropy, one": (each(lambda r: F.cross_entropy(r[0], torch.tensor(2))[None]), TOKENS),
    "poisson_nll_loss": lost("poisson_nll_loss", FIXED.exp(), full=True),
    "poisson_nll_loss, rates": (each(lambda r: F.poisson_nll_loss(r.exp(), SOFT, log_input=False)[None]), TOKENS),
    "gaussian_nll_loss": (each(lambda r: F.gaussian_nll_loss(r, FIXED, r.flip(1).exp(), full=True)[None]), TOKENS),
    "gaussian_nll_loss, a row": (each(lambda r: F.gaussian_nll_loss(r, FIXED, r[:, 0].square())[None]), TOKENS),
    "triplet_margin_loss": lost("triplet_margin_loss", FIXED, -FIXED, swap=True),
}
MANY: dict[str, Case] = {**RANKS, **ALGEBRA, **LOSSES}
"""A call of each; of one with several, "name, which"."""


def grouped_product(z: Tensor) -> Tensor:
    """Rows of groups times matrices that are made of them, in a form that has a kernel."""
    rows, ends = F.pad(z, (0, 2)).flatten(0, 1), torch.tensor([4, 8], dtype=torch.int32)
    return F.grouped_mm(rows, rows[::4, :, None] * weight(8).to(z.dtype) - 1, offs=ends).reshape(2, 4, 8)
