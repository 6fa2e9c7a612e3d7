"""Writes docs/performance.md and benchmarks/results.md from what the benchmarks measured.

python docs/make_performance.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import render  # noqa: E402

REST = """
## How it is made fast on a CPU

* *Memory*: a run tells glibc to keep what a step frees (`jaxfer/memory.py`). As it stands, glibc
  maps the temporaries of every step with large patches anew, and the kernel clears each of their
  pages. PyTorch runs as it comes. Settings of the allocator in the environment (`GLIBC_TUNABLES`,
  `MALLOC_…`) are left alone: `MALLOC_PERTURB_=0 make bench` measures without what is kept.
* *Narrow layers*: XLA hands a 2-D convolution to its fast kernels only where inputs or outputs
  are more than 16 channels. Between narrower ones an output of zeros is added and cut off again;
  volumes are convolved by the products below.
* *Volumes*: XLA has no fast 3-D kernels. Between layers of more than 16 channels a volume is
  convolved plane by plane, each plane as a sum of 2-D convolutions, so that what the taps share
  stays in the cache.
* *One product a plane* (`jaxfer/models/plane_products.py`): volumes between narrow layers, and the
  gradient of a kernel of several taps along the first axis. What all taps see lies side by side in
  one array that stays from plane to plane; only the newest plane is written to it, which saves most
  of the copies that padding, shifting and concatenating made.
* *Gradient of a kernel*: in 2-D a convolution of the layer's input with the slope of its output,
  the batch as channels. Where the slope has at most 16 channels and the input more, the two change
  places, for the fast kernels; where neither has more, and the input more than one, it is one
  product an image as above. In 3-D one product a plane, or, where planes have few pixels, and where
  there is one tap along the first axis, the same as in 2-D per tap.
* *Instance norm and leaky ReLU*: one function whose gradient is formed from the input and two
  numbers per channel. The variance is that of the centred values: a single pass over sums of
  squares loses the digits of bright images, and XLA makes a pass of its own for each sum anyway.
* *Pooling* is a reshape and a maximum, a transposed convolution of stride = kernel a matrix
  product of rows and depth-to-space; XLA's gradient of a product with several axes of rows is
  slower.
* *Skip and upsampled half* are concatenated: convolved apart, each half would be narrow at the
  finest level.

GPUs and TPUs get XLA's native convolutions and compute in bfloat16 (`model.precision`);
parameters, the sums of instance norm and the logits are float32. Parameters are the same
everywhere: a checkpoint of one formulation loads in the other.
"""


def page(results: dict[str, Any]) -> str:
    """performance.md."""
    made = "Made by `docs/make_performance.py` from `benchmarks/results.json`, which `make bench` "
    made += f"writes; the numbers are of one machine: {results['machine']}.\n\n"
    return f"# Speed\n\n{made}{render.HEAD}{render.sections(results)}{REST}"


def main() -> None:
    results = json.loads((ROOT / "benchmarks/results.json").read_text())
    (ROOT / "docs/performance.md").write_text(page(results))
    (ROOT / "benchmarks/results.md").write_text(render.page(results))


if __name__ == "__main__":
    main()
