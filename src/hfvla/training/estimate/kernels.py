"""What a GPU would run where the meta device runs something else: autocast, fused attention, fused dropout."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["GpuKernels"]

_HALF = (torch.bfloat16, torch.float16)
_FLASH_HEAD_SIZE = 256

# The lists of torch.autocast for CUDA (torch.amp, "Op-Specific Behavior"), as far as models use them.
_LOWER_NAMES = {
    F: "linear bilinear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d "
    "scaled_dot_product_attention",
    torch: "matmul mm mv bmm addmm addmv addbmm baddbmm chain_matmul einsum prelu",
    Tensor: "matmul __matmul__ __rmatmul__ mm mv bmm addmm addmv addbmm baddbmm",
}
_FLOAT32_NAMES = {
    F: "layer_norm group_norm softmax log_softmax softplus normalize cosine_similarity cross_entropy nll_loss "
    "mse_loss l1_loss smooth_l1_loss huber_loss kl_div gaussian_nll_loss binary_cross_entropy_with_logits pdist "
    "cosine_embedding_loss margin_ranking_loss triplet_margin_loss soft_margin_loss hinge_embedding_loss "
    "multi_margin_loss poisson_nll_loss",
    torch: "layer_norm group_norm softmax log_softmax norm cumprod cumsum exp expm1 log log10 log2 log1p pow rsqrt "
    "reciprocal sum prod acos asin cosh sinh tan erfinv dist cdist renorm",
    Tensor: "softmax log_softmax norm cumprod cumsum exp expm1 log log10 log2 log1p pow __pow__ __rpow__ rsqrt "
    "reciprocal sum prod acos asin cosh sinh tan erfinv dist renorm",
}


def _functions(names: dict[Any, str]) -> frozenset[Any]:
    return frozenset(getattr(owner, name) for owner, listed in names.items() for name in listed.split())


_LOWER, _FLOAT32 = _functions(_LOWER_NAMES), _functions(_FLOAT32_NAMES)
_DROPOUTS = frozenset([F.dropout, torch.dropout])
_FACTORIES = frozenset([torch.tensor, torch.as_tensor])


class GpuKernels(TorchFunctionMode):
    """Makes functions on meta tensors keep what they keep on a GPU.

    Args:
        autocast: dtype that matrix products run in, as under `torch.autocast`; None = as the weights are.
        share_casts: keep a cast weight until `end_forward`, as `torch.autocast` does until it is left.
    """

    def __init__(self, autocast: torch.dtype | None = None, share_casts: bool = True) -> None:
        super().__init__()
        self.autocast = autocast
        self._casts: dict[int, Tensor] | None = {} if share_casts else None

    def end_forward(self) -> None:
        """Drop the cast weights, as leaving `torch.autocast` does."""
        self._casts = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one function with its arguments cast, or the fused kernel in its place."""
        kwargs = kwargs or {}
        if self.autocast is not None and (func in _LOWER or func in _FLOAT32):
            dtype = self.autocast if func in _LOWER else torch.float32
            args, kwargs = self._cast(args, dtype), {key: self._cast(part, dtype) for key, part in kwargs.items()}
        elif self.autocast is None and func in _LOWER:  # parts of several types, see `hfvla.nn.mixed_precision`
            tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            widest = max((t.dtype for t in tensors if t.is_floating_point()), key=lambda d: d.itemsize, default=None)
            if widest is not None:
                args, kwargs = (
                    self._cast(args, widest),
                    {key: self._cast(part, widest) for key, part in kwargs.items()},
                )
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if func in _DROPOUTS:
            return _dropout(func, *args, **kwargs)
        if func in _FACTORIES and torch.device(kwargs.get("device") or "cpu").type == "meta":
            kwargs = {key: value for key, value in kwargs.items() if key != "device"}
        return func(*args, **kwargs)

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(self._cast(part, dtype) for part in value)
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype in (dtype, torch.float64):
            return value
        shared = self._casts is not None and dtype in _HALF and value.is_leaf and value.requires_grad
        if not shared or self._casts is None:
            return value.to(dtype)
        if id(value) not in self._casts:
            self._casts[id(value)] = value.to(dtype)
        return self._casts[id(value)]


def _dropout(func: Any, values: Tensor, p: float = 0.5, training: bool = True, *rest: Any, **more: Any) -> Tensor:
    """Drop with the fused kernel, which keeps one byte an element."""
    training = more.pop("train", training)
    if not training or not 0 < p < 1 or any(rest) or any(more.values()):  # in place
        return func(values, p, training, *rest, **more)
    return torch.native_dropout(values, p, True)[0]


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attend with the kernel that `scaled_dot_product_attention` picks on a GPU from Ampere on.

    Shapes: query [B, H, Q, D], key and value [B, H or fewer, K, D], mask broadcast to [B, H, Q, K].
    """
    half = query.dtype in _HALF
    options = {"scale": query.shape[-1] ** -0.5 if scale is None else scale}
    if query.dim() != 4 or not (half or not enable_gqa) or (enable_gqa and attn_mask is not None):
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if half and attn_mask is None and query.shape[-1] <= _FLASH_HEAD_SIZE:
        size = value.shape[-1]
        query, key, value = (_padded(part, 8) for part in (query, key, value))
        size = value.shape[-1]
        out = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, False, **options
        )
        return out[0][..., :size]
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:  # its numbers, which may be real, are not needed: only the bias's shape is
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype, device=query.device)
        attn_mask = attn_mask.to(device=query.device, dtype=query.dtype)
        attn_mask = attn_mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, query.requires_grad or key.requires_grad, dropout_p, is_causal, **options
    )[0]


def _padded(tensor: Tensor, multiple: int) -> Tensor:
    missing = -tensor.shape[-1] % multiple
    return F.pad(tensor, (0, missing)) if missing else tensor
