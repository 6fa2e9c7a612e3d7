"""The same networks in PyTorch, and MONAI's sliding window."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import monai
import torch
from monai.inferers import sliding_window_inference
from torch import nn
from torch.nn import functional as F

CLASSES, SLOPE = 4, 0.01
Told = dict[str, Any]
LAYERS = {
    2: (nn.Conv2d, nn.InstanceNorm2d, nn.ConvTranspose2d, nn.MaxPool2d),
    3: (nn.Conv3d, nn.InstanceNorm3d, nn.ConvTranspose3d, nn.MaxPool3d),
}


def prepare(threads: int, **_: object) -> None:
    torch.set_num_threads(threads)


def versions() -> dict[str, str]:
    return {"torch": torch.__version__, "monai": monai.__version__}


class UNet(nn.Module):
    """The network of ``jaxfer.models.unet``, from PyTorch's own layers; a transposed convolution
    has a bias per channel, where ours has one for each of the places that it fills, too."""

    def __init__(self, axes: int, widths: list[int]) -> None:
        super().__init__()
        convolution, norm, transposed, pool = LAYERS[axes]

        def block(first: int, width: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for inputs in (first, width):
                layers += [
                    convolution(inputs, width, 3, padding=1, bias=False),
                    norm(width, affine=True),
                    nn.LeakyReLU(SLOPE, inplace=True),
                ]
            return nn.Sequential(*layers)

        pairs = list(pairwise(widths))
        self.encoders = nn.ModuleList(
            [block(i, w) for i, w in zip([1, *widths], widths, strict=False)]
        )
        self.upsamples = nn.ModuleList([transposed(below, own, 2, 2) for own, below in pairs])
        self.decoders = nn.ModuleList([block(2 * own, own) for own, _ in pairs])
        self.head = convolution(widths[0], CLASSES, 1)
        self.pool = pool(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for level, encoder in enumerate(self.encoders):
            x = encoder(x if level == 0 else self.pool(x))
            kept.append(x)
        for level in reversed(range(len(self.decoders))):
            x = self.decoders[level](torch.cat([kept[level], self.upsamples[level](x)], 1))
        return self.head(x)


def weights_of(model: nn.Module) -> int:
    """How many weights the kernels have."""
    return sum(own.numel() for own in model.parameters() if own.ndim > 1)


def training(widths: list[int], shape: list[int]) -> Callable[[], Told]:
    """One training step: cross-entropy and soft Dice, clipped gradients, AdamW."""
    axes = len(shape) - 1
    model = UNet(axes, widths)
    image, label = torch.randn(shape[0], 1, *shape[1:]), torch.randint(0, CLASSES, shape)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    spatial = tuple(range(2, 2 + axes))

    def job() -> Told:
        optimizer.zero_grad()
        logits = model(image)
        probs, truth = logits.softmax(1), F.one_hot(label, CLASSES).movedim(-1, 1).float()
        overlap = 2 * (probs * truth).sum(spatial) + 1
        dice = 1 - (overlap / ((probs + truth).sum(spatial) + 1)).mean()
        (F.cross_entropy(logits, label) + dice).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return {"weights": weights_of(model)}

    return job


def inference(
    widths: list[int], volume: list[int], patch: list[int], batch: int
) -> Callable[[], Told]:
    """A whole volume by MONAI's sliding window; in 2-D its slices are the batch."""
    model = UNet(len(patch), widths).eval()
    image = torch.randn(volume)
    image = image.movedim(2, 0)[:, None] if len(patch) == 2 else image[None, None]

    @torch.inference_mode()
    def job() -> Told:
        def probs(tile: torch.Tensor) -> torch.Tensor:
            return model(tile).softmax(1)

        sliding_window_inference(image, patch, batch, probs, overlap=0.5, mode="gaussian")
        return {"weights": weights_of(model)}

    return job


JOBS = {"train": training, "infer": inference}
