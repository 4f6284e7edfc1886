"""How long TensorFlow waits for a patch, and what XLA's program keeps in memory meanwhile.

    python benches/patches_tensorflow.py

Every method cuts the same patches, compared with the float64 oracle in the same run. Times are
medians over `--repeats` calls after one that compiles; the loop runs a tenth as often.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import tensorflow as tf

import reference
from patch_cases import tolerance
from ptycho_fast.patches.tensorflow import extract_patches
from xla_memory import compiled_memory

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name, default in (("N", 64), ("C", 4), ("B", 64), ("height", 600), ("width", 600)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    B, C, N = arguments.B, arguments.C, arguments.N
    shape = arguments.height, arguments.width

    rng = np.random.default_rng(0)
    values = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    image = tf.constant(values)
    positions = np.stack([rng.uniform(0, side, (B, C)) for side in shape[::-1]], axis=1)
    expected = reference.extract_patches(values, positions, N)
    upstream = tf.constant(expected.astype(np.complex64))
    where = tf.constant(positions)

    def extract(method: str) -> Callable[[], Any]:
        return lambda: extract_patches(image, where, N, method=method)

    traced = tf.function(lambda image, where: extract_patches(image, where, N))
    methods: dict[str, Callable[[], Any]] = {
        "iterative": extract("iterative"),
        "xla": extract("xla"),
        "auto": extract("auto"),
        "auto, inside tf.function": lambda: traced(image, where),
    }
    device = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    print(f"{B} groups of {C}, N = {N}, object {shape} on the {device}, {os.cpu_count()} cores")
    print(f"{'method':26}{'extract':>12}{'and gradient':>14}   µs a patch")
    gradients = {}
    for name, method in methods.items():
        error = np.abs(method().numpy() - expected).max()
        if error > tolerance(values):
            sys.exit(f"{name} is wrong by {error}, more than {tolerance(values)}")

        def both(method: Callable[[], Any] = method) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(image)
                patches = method()
            return tape.gradient(patches, image, output_gradients=upstream)

        gradients[name] = both().numpy()
        repeats = max(arguments.repeats // (10 if name == "iterative" else 1), 1)
        times = [median_time(call, repeats) / (B * C) * 1e6 for call in (method, both)]
        print(f"{name:26}{times[0]:12.1f}{times[1]:14.1f}   largest error {error:.1e}")
    for name, gradient in gradients.items():
        off = np.abs(gradient - gradients["iterative"]).max() / np.abs(gradient).max()
        if off > 1e-5:
            sys.exit(f"The gradient of {name} is off by {off} of its largest value.")

    (_, extraction), (_, gradient) = compiled_memory([(B, C, N, *shape)])
    print(
        f"XLA:CPU's program, beside {8 * B * C * N**2:,} bytes of patches: {extraction:,} bytes to "
        f"extract, {gradient:,} for the gradient"
    )


def median_time(call: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        np.asarray(call())[0].sum()  # a GPU has finished when its values are here
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
