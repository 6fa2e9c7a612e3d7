"""The 2-D U-Net: two 3×3 convolutions, instance norm and leaky ReLU per level, no residuals."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Features = dict[str, Float[Array, "..."]]


class InstanceNorm(nn.Module):
    """Normalises every channel of every image over its pixels, with a learned scale and bias."""

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        mean = x.mean((1, 2), keepdims=True)
        centred = x - mean
        variance = jnp.square(centred).mean((1, 2), keepdims=True)
        shape = (1, 1, 1, channels)
        gain = jax.lax.rsqrt(variance + self.epsilon) * scale.reshape(shape)
        return centred * gain + bias.reshape(shape)


class ConvolutionBlock(nn.Module):
    """Two times: 3×3 convolution, instance norm, leaky ReLU."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w k"]:
        for _ in range(2):
            x = nn.Conv(self.width, (3, 3), use_bias=False)(x)
            x = nn.leaky_relu(InstanceNorm()(x), 0.01)
        return x


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Maximum over 2×2 blocks, as a reshape: its gradient is several times cheaper on a CPU."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))


class Upsample(nn.Module):
    """2×2 stride-2 transposed convolution, written as a matrix product and depth-to-space.

    The same function as a transposed convolution whose kernel equals its stride, without XLA's
    slow path for it on a CPU.
    """

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 k"]:
        b, h, w, _ = x.shape
        x = nn.Dense(4 * self.width)(x).reshape(b, h, w, 2, 2, self.width)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, self.width)


class UNet(nn.Module):
    """A U-Net from images to logits, with the features of every level by name.

    Attributes:
        num_classes: number of output channels, background included.
        widths: channels per level, finest first; the image sides must divide by 2^(levels − 1).
    """

    num_classes: int
    widths: Sequence[int]

    @nn.compact
    def __call__(self, image: Float[Array, "b h w m"]) -> tuple[Float[Array, "b h w c"], Features]:
        """The logits, and the output of each level by name (``decoder_0`` is the finest)."""
        features: Features = {}
        x = image
        last = len(self.widths) - 1
        for level, width in enumerate(self.widths):
            x = ConvolutionBlock(width, name=f"encoder_{level}")(x)
            features[f"encoder_{level}"] = x
            if level < last:
                x = max_pool(x)
        for level in reversed(range(last)):
            x = Upsample(self.widths[level], name=f"upsample_{level}")(x)
            x = jnp.concatenate([features[f"encoder_{level}"], x], axis=-1)
            x = ConvolutionBlock(self.widths[level], name=f"decoder_{level}")(x)
            features[f"decoder_{level}"] = x
        return nn.Dense(self.num_classes, name="head")(x), features
