"""A process with less memory than the core needs gets a MemoryError, and is never killed.

One child process runs every entry point of the core in a fork of its own, once for each of several
memory limits: from so little that nothing fits to more than the work takes.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = r"""
import os
import resource
import sys

import numpy as np

from ptycho_fast import _core

limit = getattr(resource, sys.argv[1])
extras = [float(mb) for mb in sys.argv[2].split(",")]
threads = int(sys.argv[3])
n, N = 20_000, 512
key = (1, 2)
rng = np.random.default_rng(0)
spread = rng.uniform(0, 500, (n, 2))
crowded = np.concatenate([spread[1:] * 1e-9, [[1e9, 0]]])
centers = np.arange(n, dtype=np.int32)
labels = (centers % 3).astype(np.int32)
grid, tree = _core.ScanIndex(spread, "auto", 1), _core.ScanIndex(crowded, "auto", 1)
listed = grid.neighbors(centers, 7, 1)
twister = np.arange(624, dtype=np.uint32)
stack = np.ones((4, N, N), np.float32)
mask = rng.random((N, N)) < 0.5
four = np.array([[0, 1, 2, 3]], np.int32)
out = np.empty((1, N, N, 4), np.float32)
many = np.tile(np.ones((1, 4, 4), np.float32), (n, 1, 1))
groups = np.arange(n, dtype=np.int32).reshape(-1, 1)
small, smaller = np.empty((n, 4, 4, 1), np.float32), np.empty((n, 4, 4, 1), np.float32)
# What is copied is given as words of its size.
large, words = (stack.view("u4"), "f4"), (many.view("u4"), "f4")
copied, copies = out.view("u4"), small.view("u4")
image = np.ones((600, 600), np.complex64)
places = np.ascontiguousarray(spread[:, :, np.newaxis])
patches = np.empty((n, 4, 4, 1), np.complex64)
wide = np.zeros((1, 2, 4))
wide_patches = np.empty((1, N, N, 4), np.complex64)


def draw(rule, source=None, positions=spread, k=7, c=4, **more):
    return _core.draw({
        "rule": rule, "source": source, "positions": positions, "centers": centers,
        "n_neighbors": k, "group_size": c, "key": key, "num_threads": threads, **more,
    })


calls = {
    "grid": lambda: _core.ScanIndex(spread, "auto", threads),
    "tree": lambda: _core.ScanIndex(spread, "kdtree", threads),
    "crowded": lambda: _core.ScanIndex(crowded, "auto", threads),
    "neighbors": lambda: grid.neighbors(centers, 40, threads),
    "neighbors, tree": lambda: tree.neighbors(centers, 40, threads),
    "many neighbors": lambda: grid.neighbors(centers[:20], n - 1, threads),
    "many neighbors, tree": lambda: tree.neighbors(centers[:20], n - 1, threads),
    "nearest": lambda: draw("nearest", grid),
    "nearest, tree": lambda: draw("nearest", tree, crowded),
    "nearest, no index": lambda: draw("nearest"),
    "large groups": lambda: draw(
        "nearest", grid, k=n, c=n, centers=centers[:20], include_center=True
    ),
    "legacy": lambda: grid.draw_legacy(None, n - 1, 7, 4, twister, 0, threads),
    "few": lambda: draw("nearest", centers=centers[::250].copy()),
    "few, crowded": lambda: draw("nearest", positions=crowded, centers=centers[::250].copy()),
    "listed": lambda: draw("nearest", listed),
    "centers": lambda: _core.draw_centers(1_000_000, 1_000_000, key, threads),
    "few centers": lambda: _core.draw_centers(1_000_000, 50_000, key, threads),
    "order": lambda: _core.draw_order(1_000_000, key, threads),
    "within": lambda: draw("nearest", grid, limits=(1.0, 5.0), groups_per_center=2),
    "within, many": lambda: draw("nearest", grid, k=100, limits=(9.0, 50.0)),
    "labels": lambda: draw("nearest", labels=labels),
    "labels of one": lambda: draw("nearest", labels=centers, limits=(0.0, 5.0)),
    "within labels": lambda: draw("nearest", labels=labels, groups_per_center=2),
    "oversample": lambda: draw("oversample", grid, n_groups=3 * n),
    "large sets": lambda: draw("oversample", grid, k=300, c=200, n_groups=10),
    "quadrant": lambda: draw("quadrant", grid, limits=(0.0, 5.0), groups_per_center=2),
    "overlap": lambda: draw(
        "overlap", grid, k=30, window=64, min_overlap=0.2, groups_per_center=2
    ),
    "pool": lambda: draw("pool", grid, n_groups=n),
    "list": lambda: draw("pool", labels=labels),
    "sample": lambda: _core.sample_pool(1_000_000, 700_000, key, threads),
    "check": lambda: _core.check_positions(spread),
    "gather": lambda: _core.gather_patterns(*large, four, copied, None, mask, threads),
    "gather many": lambda: _core.gather_patterns(*words, groups, copies, None, None, threads),
    "gather twice": lambda: _core.gather_twice(*words, groups, copies, smaller, 2.0, threads),
    "energies": lambda: _core.pattern_energies(*words, None, None, threads),
    "patches": lambda: _core.extract_patches(image, places, patches, threads),
    "wide patches": lambda: _core.extract_patches(image, wide, wide_patches, threads),
    "add": lambda: _core.add_patches(patches, places, image, threads),
}
enough = set()
for name, call in calls.items():
    refused = 0
    for extra in extras:
        child = os.fork()
        if child == 0:
            with open("/proc/self/statm") as file:
                pages = [int(word) for word in file.read().split()]
            taken = pages[0 if limit == resource.RLIMIT_AS else 5] * resource.getpagesize()
            most = taken + int(extra * 2**20)
            resource.setrlimit(limit, (most, most))
            try:
                call()
            except MemoryError as error:
                os._exit(3 if str(error) else 5)
            except BaseException as error:
                print(name, extra, type(error).__name__, error, flush=True)
                os._exit(4)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            enough.add(name)
        elif code == 3:
            refused += 1
        else:
            print(f"{name}, {extra} MB more: ended with {code}", flush=True)
print("never enough:", sorted(set(calls) - enough))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits are Linux's")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_every_entry_point_raises_memory_error_where_memory_is_short(
    limit: str, threads: int
) -> None:
    extras = "0.1,1,4.5,5.5,7,10,14,25,600"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, limit, extras, str(threads)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["never enough: []"]
