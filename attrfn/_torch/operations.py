"""What attrfn knows of torch's operations: one record each, from which every set of them is derived."""

from collections.abc import Iterable
from enum import Enum
from typing import Any, NamedTuple

from torch import nn


class Kind(Enum):
    """What an operation is: its kind names the rule that it has by default."""

    ELEMENTWISE = "of one tensor, entry by entry"
    PRODUCT = "linear in each operand alone"
    QUOTIENT = "linear in its first operand, divided by its second"
    SOFTMAX = "a softmax, its logarithm, or what it is divided by"
    WINDOW = "the maximum of each window"
    EXTREMUM = "the largest or smallest along dimensions, or of two"
    RANKED = "the entries of given ranks along a dimension, and where they were"
    OWN = "of a formula of its own"
    MADE = "made of others, see `COMPOSITES`"
    OPENED = "a Python function of torch's whose own operations are seen in its place"
    CELL = "in one kernel, which is written out: a step of a recurrent layer, a sum with a sparse product"
    FUSED = "a kernel of many steps, none of which is seen"
    LINEAR = "linear in what is explained, constant, or it lets nothing of it through"
    CONSTANT = "answers with numbers, or choices, and lets nothing through"


class Operation(NamedTuple):
    """One operation of torch."""

    name: str
    """Of its function: in `torch.nn.functional`, else in `torch`, else of the method."""
    kind: Kind
    others: str = ""
    """Its other names; each has a form in place too."""
    module: type[nn.Module] | None = None
    inplace: int | None = None
    """Where its function in `torch.nn.functional` takes `inplace`."""
    factors: int | None = 2
    """Of a product: how many operands it is linear in; None: all."""
    multilinear: bool = False
    """Whether it is linear in each operand alone: of one activation, the rest constant, it is linear."""
    reciprocal: bool = False
    """Whether it gives one over something, as the scale of a norm is made."""
    chooses: bool = False
    """Whether it selects by integer and boolean tensors."""
    fixed: int | None = None
    """From which operand on it is linear only where they stay as they are: places to sample at."""
    keeps: bool = False
    """Whether it is a cast or a view: of a reciprocal it is one still."""
    draws: int | None = None
    """Where an operation that draws random numbers in training is told to."""


def _each(names: str, kind: Kind, **what: Any) -> Iterable[Operation]:
    """A record for each name."""
    return (Operation(name, kind, **what) for name in names.split())


_ELEMENTWISE = (
    Operation("relu", Kind.ELEMENTWISE, module=nn.ReLU, inplace=1),
    Operation("relu6", Kind.ELEMENTWISE, module=nn.ReLU6, inplace=1),
    Operation("leaky_relu", Kind.ELEMENTWISE, module=nn.LeakyReLU, inplace=2),
    Operation("prelu", Kind.ELEMENTWISE, module=nn.PReLU),
    Operation("rrelu", Kind.ELEMENTWISE, module=nn.RReLU, inplace=4, draws=3),
    Operation("elu", Kind.ELEMENTWISE, module=nn.ELU, inplace=2),
    Operation("selu", Kind.ELEMENTWISE, module=nn.SELU, inplace=1),
    Operation("celu", Kind.ELEMENTWISE, module=nn.CELU, inplace=2),
    Operation("gelu", Kind.ELEMENTWISE, module=nn.GELU),
    Operation("silu", Kind.ELEMENTWISE, module=nn.SiLU, inplace=1),
    Operation("mish", Kind.ELEMENTWISE, module=nn.Mish, inplace=1),
    Operation("softplus", Kind.ELEMENTWISE, module=nn.Softplus),
    Operation("softsign", Kind.ELEMENTWISE, module=nn.Softsign),
    Operation("sigmoid", Kind.ELEMENTWISE, "special_expit expit", module=nn.Sigmoid),
    Operation("logsigmoid", Kind.ELEMENTWISE, "log_sigmoid", module=nn.LogSigmoid),
    Operation("hardsigmoid", Kind.ELEMENTWISE, module=nn.Hardsigmoid, inplace=1),
    Operation("hardswish", Kind.ELEMENTWISE, module=nn.Hardswish, inplace=1),
    Operation("hardtanh", Kind.ELEMENTWISE, module=nn.Hardtanh, inplace=3),
    Operation("tanh", Kind.ELEMENTWISE, module=nn.Tanh),
    Operation("tanhshrink", Kind.ELEMENTWISE, module=nn.Tanhshrink),
    Operation("softshrink", Kind.ELEMENTWISE, module=nn.Softshrink),
    Operation("hardshrink", Kind.ELEMENTWISE, module=nn.Hardshrink),
    Operation("threshold", Kind.ELEMENTWISE, "_threshold", module=nn.Threshold, inplace=3),
    Operation("clamp", Kind.ELEMENTWISE, "clip clamp_min clamp_max"),
    Operation("exp", Kind.ELEMENTWISE),
    Operation("expm1", Kind.ELEMENTWISE, "special_expm1"),
    Operation("exp2", Kind.ELEMENTWISE, "special_exp2"),
    Operation("log", Kind.ELEMENTWISE),
    Operation("log1p", Kind.ELEMENTWISE, "special_log1p"),
    Operation("log2", Kind.ELEMENTWISE),
    Operation("log10", Kind.ELEMENTWISE),
    Operation("sqrt", Kind.ELEMENTWISE),
    Operation("rsqrt", Kind.ELEMENTWISE, reciprocal=True),
    Operation("reciprocal", Kind.ELEMENTWISE, reciprocal=True),
    Operation("square", Kind.ELEMENTWISE),
    Operation("pow", Kind.ELEMENTWISE, "__pow__ float_power"),
    Operation("abs", Kind.ELEMENTWISE, "absolute __abs__"),
    Operation("erf", Kind.ELEMENTWISE, "special_erf"),
    Operation("erfc", Kind.ELEMENTWISE, "special_erfc"),
    Operation("sin", Kind.ELEMENTWISE),
    Operation("cos", Kind.ELEMENTWISE),
    Operation("tan", Kind.ELEMENTWISE),
    Operation("sinh", Kind.ELEMENTWISE),
    Operation("cosh", Kind.ELEMENTWISE),
    Operation("atan", Kind.ELEMENTWISE, "arctan"),
    Operation("asinh", Kind.ELEMENTWISE, "arcsinh"),
    Operation("logit", Kind.ELEMENTWISE, "special_logit"),
    Operation("sign", Kind.ELEMENTWISE, "sgn"),
    Operation("floor", Kind.ELEMENTWISE),
    Operation("ceil", Kind.ELEMENTWISE),
    Operation("round", Kind.ELEMENTWISE, "special_round"),
    Operation("trunc", Kind.ELEMENTWISE, "fix"),
    Operation("frac", Kind.ELEMENTWISE),
    Operation("lgamma", Kind.ELEMENTWISE, "special_gammaln"),
    Operation("digamma", Kind.ELEMENTWISE, "special_digamma special_psi"),
)

_PRODUCTS = (
    Operation("mul", Kind.PRODUCT, "multiply __mul__ __rmul__", multilinear=True),
    Operation("div", Kind.QUOTIENT, "divide true_divide __truediv__", multilinear=True),
    Operation("matmul", Kind.PRODUCT, "linalg_matmul __matmul__", multilinear=True),
    Operation("outer", Kind.PRODUCT, "ger", multilinear=True),
    *_each("bmm mm mv dot vdot inner kron cross tensordot linear", Kind.PRODUCT, multilinear=True),
    *_each("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d", Kind.PRODUCT, multilinear=True),
    Operation("bilinear", Kind.PRODUCT, multilinear=True, factors=3),
    Operation("einsum", Kind.PRODUCT, multilinear=True, factors=None),
    *_each("linalg_cross linalg_vecdot", Kind.PRODUCT),
    Operation("_sparse_mm", Kind.PRODUCT, multilinear=True),
    Operation("grouped_mm", Kind.PRODUCT, "_grouped_mm", multilinear=True, chooses=True),
    *_each("addmm addmv addbmm addr baddbmm addcmul lerp", Kind.MADE, multilinear=True),
)

_OTHERS = (
    Operation("softmax", Kind.SOFTMAX, "special_softmax", module=nn.Softmax),
    Operation("log_softmax", Kind.SOFTMAX, "special_log_softmax", module=nn.LogSoftmax),
    Operation("logsumexp", Kind.SOFTMAX, "special_logsumexp"),
    Operation("max_pool1d", Kind.WINDOW, module=nn.MaxPool1d),
    Operation("max_pool2d", Kind.WINDOW, module=nn.MaxPool2d),
    Operation("max_pool3d", Kind.WINDOW, module=nn.MaxPool3d),
    *_each("max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices", Kind.WINDOW),
    *_each("adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d", Kind.WINDOW),
    *_each("adaptive_max_pool1d_with_indices adaptive_max_pool2d_with_indices", Kind.WINDOW),
    Operation("adaptive_max_pool3d_with_indices", Kind.WINDOW),
    *_each("amax amin max min cummax cummin", Kind.EXTREMUM),
    *_each("sort topk kthvalue median", Kind.RANKED),
    Operation("scatter_reduce", Kind.OWN, chooses=True),
    Operation("index_reduce", Kind.OWN, chooses=True),
    Operation("floor_divide", Kind.OWN, "__floordiv__"),
    Operation("remainder", Kind.OWN, "__mod__"),
    *_each("fmod linalg_solve_triangular linalg_solve", Kind.OWN),
    Operation("linalg_inv", Kind.OWN, "inverse"),
    *_each("layer_norm rms_norm group_norm instance_norm batch_norm scaled_dot_product_attention glu", Kind.MADE),
    *_each("var std var_mean std_mean prod cumprod aminmax msort quantile cumulative_trapezoid", Kind.MADE),
    Operation("trapezoid", Kind.MADE, "trapz"),
    *_each("norm linalg_norm linalg_vector_norm linalg_matrix_norm cosine_similarity", Kind.MADE),
    *_each("pairwise_distance dist cdist pdist segment_reduce", Kind.MADE),
    *_each("mse_loss l1_loss huber_loss smooth_l1_loss soft_margin_loss hinge_embedding_loss", Kind.MADE),
    *_each("margin_ranking_loss cosine_embedding_loss kl_div binary_cross_entropy", Kind.MADE),
    *_each("binary_cross_entropy_with_logits nll_loss cross_entropy poisson_nll_loss", Kind.MADE),
    *_each("gaussian_nll_loss triplet_margin_loss", Kind.MADE),
    *_each("maximum minimum logaddexp hypot addcdiv", Kind.MADE),
    Operation("softmin", Kind.OPENED, module=nn.Softmin),
    *_each("multi_head_attention_forward normalize local_response_norm __rpow__ __rdiv__", Kind.OPENED),
    *_each("__rmod__ __rfloordiv__ multilabel_soft_margin_loss triplet_margin_with_distance_loss", Kind.OPENED),
    *_each("lp_pool1d lp_pool2d lp_pool3d", Kind.OPENED),
    *_each("rnn_tanh_cell rnn_relu_cell lstm_cell gru_cell _sparse_addmm", Kind.CELL),
    *_each("gru lstm rnn_tanh rnn_relu", Kind.FUSED),
)

_LINEAR = (
    # arithmetic; of one activation, the rest constant
    *_each("add sub rsub __add__ __radd__ __sub__ __rsub__ __neg__ __pos__ subtract negative positive", Kind.LINEAR),
    *_each("sum mean nansum nanmean cumsum diff", Kind.LINEAR),
    *_each("sum_to_size deg2rad rad2deg complex trace nan_to_num", Kind.LINEAR),
    Operation("neg", Kind.LINEAR, keeps=True),
    Operation("gradient", Kind.LINEAR, fixed=1),
    # shape
    *_each("reshape view view_as reshape_as flatten squeeze unsqueeze", Kind.LINEAR, keeps=True),
    *_each("permute transpose movedim expand expand_as broadcast_to", Kind.LINEAR, keeps=True),
    *_each("repeat contiguous clone", Kind.LINEAR, keeps=True),
    *_each("unflatten ravel swapaxes swapdims moveaxis t adjoint mT broadcast_tensors tile", Kind.LINEAR),
    *_each("repeat_interleave cat concat concatenate stack hstack vstack dstack column_stack", Kind.LINEAR),
    *_each("row_stack split split_with_sizes tensor_split chunk unbind narrow select hsplit", Kind.LINEAR),
    *_each("vsplit dsplit unfold fold flip fliplr flipud roll rot90 diag diagonal diag_embed", Kind.LINEAR),
    *_each("diagflat tril triu meshgrid atleast_1d atleast_2d atleast_3d as_strided block_diag", Kind.LINEAR),
    *_each("select_scatter slice_scatter diagonal_scatter im2col col2im pixel_shuffle", Kind.LINEAR),
    *_each("pixel_unshuffle channel_shuffle native_channel_shuffle unsafe_chunk unsafe_split", Kind.LINEAR),
    *_each("alias view_as_real view_as_complex", Kind.LINEAR),
    # selections with constant indices or masks
    Operation("__getitem__", Kind.LINEAR, chooses=True, keeps=True),
    *_each("__setitem__ index_select gather take take_along_dim masked_select", Kind.LINEAR, chooses=True),
    *_each("masked_fill masked_scatter where index index_put index_add index_copy", Kind.LINEAR, chooses=True),
    *_each("scatter scatter_add embedding embedding_bag", Kind.LINEAR, chooses=True),
    *_each("max_unpool1d max_unpool2d max_unpool3d", Kind.LINEAR, chooses=True),
    *_each("grid_sample grid_sampler grid_sampler_2d grid_sampler_3d", Kind.LINEAR, fixed=1),
    Operation("index_fill", Kind.LINEAR),
    # padding, resampling, averaging
    *_each("pad constant_pad_nd _pad_circular reflection_pad1d reflection_pad2d", Kind.LINEAR),
    *_each("reflection_pad3d replication_pad1d replication_pad2d replication_pad3d", Kind.LINEAR),
    *_each("interpolate upsample upsample_nearest upsample_bilinear avg_pool1d avg_pool2d", Kind.LINEAR),
    *_each("avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d affine_grid", Kind.LINEAR),
    *_each("dropout dropout1d dropout2d dropout3d alpha_dropout", Kind.LINEAR, draws=2),
    *_each("feature_alpha_dropout feature_dropout", Kind.LINEAR, draws=2),
    # transforms
    *_each("fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2", Kind.LINEAR),
    *_each("fft_fftn fft_ifftn fft_rfftn fft_irfftn fft_hfft fft_ihfft fft_fftshift", Kind.LINEAR),
    *_each("fft_ifftshift stft istft real imag conj resolve_conj resolve_neg conj_physical", Kind.LINEAR),
    # dtype, device, memory
    *_each("to type type_as float double half bfloat16", Kind.LINEAR, keeps=True),
    *_each(
        "cpu cuda copy fill zero __get__ __set__ _to_copy requires_grad_ as_tensor __deepcopy__ __iter__", Kind.LINEAR
    ),
    # constants: nothing flows through them
    *_each("detach zeros_like ones_like full_like empty_like rand_like randn_like randint_like", Kind.LINEAR),
    *_each("new_zeros new_ones new_full new_empty new_tensor bernoulli one_hot register_hook", Kind.LINEAR),
    *_each("retain_grad _set_grad_enabled set_", Kind.LINEAR),
)

_CONSTANT = (
    Operation("_nested_tensor_from_mask_left_aligned", Kind.CONSTANT),
    *_each("__array__ __bool__ __contains__ __dlpack__ __eq__ __float__ __format__ __ge__ __gt__", Kind.CONSTANT),
    *_each("__hash__ __index__ __int__ __le__ __len__ __lt__ __ne__ __repr__ all allclose any", Kind.CONSTANT),
    *_each("argmax argmin argsort bincount bool bucketize byte char count_nonzero data_ptr dim", Kind.CONSTANT),
    *_each("element_size eq equal ge get_device gt histc int is_complex is_contiguous", Kind.CONSTANT),
    *_each("is_floating_point is_inference is_leaf is_nonzero is_pinned is_same_size is_sparse", Kind.CONSTANT),
    *_each("isclose isfinite isinf isnan item layout le logical_and logical_not logical_or", Kind.CONSTANT),
    *_each("logical_xor long lt ndim ne nelement nonzero numel numpy searchsorted short signbit", Kind.CONSTANT),
    *_each("size storage_offset stride tolist untyped_storage", Kind.CONSTANT),
)

OPERATIONS: dict[str, Operation] = {
    one.name: one for one in (*_ELEMENTWISE, *_PRODUCTS, *_OTHERS, *_LINEAR, *_CONSTANT)
}


def names(*kinds: Kind) -> frozenset[str]:
    """The names of all operations of these kinds."""
    return frozenset(one.name for one in OPERATIONS.values() if one.kind in kinds)


def names_that(what: str) -> frozenset[str]:
    """The names of all operations whose record says so."""
    return frozenset(one.name for one in OPERATIONS.values() if getattr(one, what) not in (None, False))


def and_in_place(found: Iterable[str]) -> frozenset[str]:
    """These names, and those of the forms in place."""
    return frozenset(form for name in found for form in (name, f"{name}_"))


ELEMENTWISE = names(Kind.ELEMENTWISE)
MULTILINEAR = names_that("multilinear")
MODULES: dict[type[nn.Module], str] = {one.module: one.name for one in OPERATIONS.values() if one.module}
ALIASES: dict[str, str] = {other: one.name for one in OPERATIONS.values() for other in one.others.split()}
INPLACE_ARGUMENT: dict[str, int] = {
    name: one.inplace
    for one in OPERATIONS.values()
    if one.inplace is not None
    for name in (one.name, *(other for other in one.others.split() if other.startswith("_")))
}
LINEAR = and_in_place(names(Kind.LINEAR))
"""Operations that are linear in what is explained, in constants, or that let nothing of it through."""
OF_SHAPES = frozenset("dim ndim size stride numel nelement element_size is_floating_point is_complex".split())
"""Questions whose answer no number has a part in."""
