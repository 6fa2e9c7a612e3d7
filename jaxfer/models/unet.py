"""The U-Net in 2-D and 3-D: two convolutions, instance norm, leaky ReLU per level, no residuals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxfer.models.convolution import Convolution, Upsample, max_pool
from jaxfer.models.levels import Levels
from jaxfer.models.normalisation import InstanceNorm
from jaxfer.models.slabs import own_slab, whole

Features = dict[str, Float[Array, "..."]]

PRECISIONS = ("auto", "float32", "bfloat16")


class ConvolutionBlock(nn.Module):
    """Two times: convolution, instance norm, leaky ReLU."""

    width: int
    sides: Sequence[int]
    conv_impl: str = "auto"
    dtype: Any = jnp.float32
    slabs: str = ""

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"]) -> Float[Array, "b *s k"]:
        how = (self.width, self.sides, self.conv_impl, self.dtype, self.slabs)
        for number in range(2):
            x = Convolution(*how, name=f"Conv_{number}")(x)
            x = InstanceNorm(slope=0.01, slabs=self.slabs)(x)
        return x


class UNet(nn.Module):
    """A U-Net from images with two or three spatial axes to logits, and every level's features.

    Attributes:
        num_classes: number of output channels, background included.
        widths: channels per level, finest first.
        strides: what each axis is divided by between the levels; () = 2 everywhere. The image's
            sides must divide by their products.
        kernels: sides of the kernels per level; () = 3 everywhere.
        conv_impl: 'auto', or one of ``jaxfer.models.convolution``.
        precision: of the computation, 'float32' or 'bfloat16'; 'auto' is bfloat16 on GPUs and TPUs.
            Parameters, instance norm's sums and the logits are float32 always.
        remat: recompute each block in the backward pass instead of keeping what lies inside.
        deep_supervision: also give logits from the coarser decoder levels, by the names
            ``logits_1``, ``logits_2`` … among the features.
        slabs: name of a mapped axis whose devices share every image, each computing a slab of it
            (``jaxfer.models.slabs``): all are given the whole images, and get the whole outputs.
            '' = each device by itself.
    """

    num_classes: int
    widths: Sequence[int]
    strides: Levels = ()
    kernels: Levels = ()
    conv_impl: str = "auto"
    precision: str = "auto"
    remat: bool = False
    deep_supervision: bool = False
    slabs: str = ""

    def _dtype(self) -> Any:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r}; one of {', '.join(PRECISIONS)}")
        if self.precision == "auto":
            return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
        return jnp.dtype(self.precision)

    @nn.compact
    def __call__(self, image: Float[Array, "b *s m"]) -> tuple[Float[Array, "b *s c"], Features]:
        """The logits, and the output of each level by name (``decoder_0`` is the finest)."""
        axes, last, dtype = image.ndim - 2, len(self.widths) - 1, self._dtype()
        strides = self.strides or ((2,) * axes,) * last
        kernels = self.kernels or ((3,) * axes,) * (last + 1)
        block: Any = nn.remat(ConvolutionBlock) if self.remat else ConvolutionBlock
        made = [
            (width, sides, self.conv_impl, dtype, self.slabs)
            for width, sides in zip(self.widths, kernels, strict=True)
        ]
        features: Features = {}
        x = image.astype(dtype)
        x = own_slab(x, self.slabs) if self.slabs else x
        for level in range(last + 1):
            x = block(*made[level], name=f"encoder_{level}")(x)
            features[f"encoder_{level}"] = x
            if level < last:
                x = max_pool(x, strides[level])
        for level in reversed(range(last)):
            wider = Upsample(self.widths[level], strides[level], dtype, name=f"upsample_{level}")
            x = jnp.concatenate([features[f"encoder_{level}"], wider(x)], axis=-1)
            x = block(*made[level], name=f"decoder_{level}")(x)
            features[f"decoder_{level}"] = x
            if self.deep_supervision and level > 0:
                head = nn.Dense(self.num_classes, name=f"head_{level}")
                features[f"logits_{level}"] = head(x.astype(jnp.float32))
        logits = nn.Dense(self.num_classes, name="head")(x.astype(jnp.float32))
        if self.slabs:
            features = {name: whole(own, self.slabs) for name, own in features.items()}
            return whole(logits, self.slabs), features
        return logits, features
