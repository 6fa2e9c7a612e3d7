"""Writes docs/performance.md from what the benchmarks measured.

python docs/make_performance.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

HEAD = """# Speed

Made by `docs/make_performance.py` from `benchmarks/results.json` and `benchmarks/profile.json`;
the numbers are of the machine named below.

## Beside PyTorch and MONAI

The same network, batch, patch, overlap and number of threads. Both run in processes of their own
that wait for one another; the ratio is formed pair by pair, so that it holds when the machine's
speed drifts. Below 1 this project is faster. PyTorch's default memory format. On one thread the
processes are pinned to one core and CPU time is compared, which other people's load hardly
changes; on several threads it is wall time, which needs a quiet machine.
"""

PROFILE = """
## Where a training step's time goes

Milliseconds per step by layer, from JAX's profiler. *native* is XLA's own convolution
(`model.conv_impl='native'`), *shifted* this project's formulation, which `'auto'` takes on CPUs.
Wall time of each operation: on a busy machine compare the columns, not the numbers with those
above.
"""

REST = """
## How it is made fast on a CPU

* *Narrow layers*: XLA hands a 2-D convolution to its fast kernels only where inputs or outputs
  are more than 16 channels. Between narrower ones an output of zeros is added and cut off again.
* *Volumes*: XLA has no fast 3-D kernels. A volume is convolved plane by plane, each plane as a
  sum of 2-D convolutions, so that what the taps share stays in the cache.
* *Gradient of a kernel*: in 2-D a convolution with the batch as channels, the wider of image and
  slope as its outputs. In 3-D the same per tap along the first axis while image and slope fit the
  cache, otherwise plane by plane, all taps in one matrix product of shifted copies.
* *Instance norm and leaky ReLU*: one function whose gradient is formed from the input and two
  numbers per channel. The variance is that of the centred values: a single pass over sums of
  squares loses the digits of bright images, and XLA makes a pass of its own for each sum anyway.
* *Pooling* is a reshape and a maximum, a transposed convolution of stride = kernel a matrix
  product and depth-to-space.
* *Skip and upsampled half* are concatenated: convolved apart, each half would be narrow at the
  finest level.

GPUs and TPUs get XLA's native convolutions and compute in bfloat16 (`model.precision`);
parameters, the sums of instance norm and the logits are float32. Parameters are the same
everywhere: a checkpoint of one formulation loads in the other.
"""


def spread(values: list[float], unit: str) -> str:
    median, low, high = values
    return f"{median:{unit}} ({low:{unit}} to {high:{unit}})"


def comparison(threads: str, found: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        f"\n### {threads} thread{'s' if threads != '1' else ''}, {found['clock']}\n",
        f"{found['machine']}; {versions}; {found['rounds']} rounds; load average "
        f"{found['load']:.1f}.\n",
        "| job | this project, s | PyTorch + MONAI, s | ratio |",
        "|---|---:|---:|---:|",
    ]
    for job, row in found["jobs"].items():
        cells = (
            spread(row["ours"], ".2f"),
            spread(row["peer"], ".2f"),
            spread(row["ratio"], ".2f"),
        )
        lines.append(f"| {job} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def profile(network: str, columns: dict[str, dict[str, float]]) -> str:
    layers = sorted({k for c in columns.values() for k in c}, key=lambda k: -columns["native"][k])
    lines = [
        f"\n### {network}\n",
        f"| layer | {' | '.join(columns)} |",
        f"|---|{'---:|' * len(columns)}",
    ]
    for layer in layers:
        lines.append(f"| {layer} | {' | '.join(f'{c[layer]:.0f}' for c in columns.values())} |")
    totals = (f"{sum(c.values()):.0f}" for c in columns.values())
    return "\n".join([*lines, f"| all | {' | '.join(totals)} |"]) + "\n"


def main() -> None:
    results = json.loads((ROOT / "benchmarks/results.json").read_text())
    profiles = json.loads((ROOT / "benchmarks/profile.json").read_text())
    tables = [comparison(*entry) for entry in sorted(results.items())]
    layers = [profile(*entry) for entry in profiles.items()]
    page = HEAD + "".join(tables) + PROFILE + "".join(layers) + REST
    (ROOT / "docs/performance.md").write_text(page)


if __name__ == "__main__":
    main()
