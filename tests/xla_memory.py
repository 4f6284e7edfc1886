"""The memory that XLA's programs for patches need, from XLA's own account."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

COMPILE = """
import json, sys
import tensorflow as tf
from ptycho_fast.patches.tensorflow import extract_patches
for B, C, N, height, width in json.loads(sys.argv[1]):
    image = tf.ones((height, width), tf.complex64)
    positions = tf.fill((B, 2, C), tf.constant(20.5, tf.float64))
    with tf.GradientTape() as tape:
        tape.watch(image)
        patches = extract_patches(image, positions, N, method="xla")
    tape.gradient(patches, image)
"""


def compiled_memory(shapes: list[tuple[int, int, int, int, int]]) -> list[tuple[int, int]]:
    """Bytes of results and of temporaries of the compiled programs.

    Two programs for each (B, C, N, H, W): the extraction, recorded by a tape, and its gradient.
    """
    with tempfile.TemporaryDirectory() as folder:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={folder}"
        subprocess.run(
            [sys.executable, "-c", COMPILE, repr([list(shape) for shape in shapes])],
            env={**os.environ, "XLA_FLAGS": flags, "CUDA_VISIBLE_DEVICES": "-1"},
            check=True,
            capture_output=True,
        )
        reports = sorted(Path(folder).glob("module_*buffer-assignment.txt"))
        names = [name for _ in shapes for name in ("_gather", "_scatter")]
        assert [re.search("_gather|_scatter", path.name)[0] for path in reports] == names  # type: ignore[index]
        texts = [path.read_text() for path in reports]
    sizes = [
        [
            sum(int(size) for size in re.findall(rf"allocation \d+: size (\d+), {kind}", text))
            for kind in (".*maybe-live-out", "preallocated-temp")
        ]
        for text in texts
    ]
    return [(results, temporaries) for results, temporaries in sizes]
