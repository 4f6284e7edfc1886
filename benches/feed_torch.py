"""Feeding PyTorch: `to_torch` beside a Dataset of single groups, and beside one constant batch.

``python benches/feed_torch.py`` prints two tables. The first has the time to make a batch of 32
groups of 4 patterns of float32 in memory, in both layouts, each rival in a process of its own, the
median of whole epochs, what it made checked. The second has the time of a training step that is
fed, the wait for its batch included, by the side of the same step with one batch that never
changes: the median step of blocks that are taken in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from measure import measure, reference, run_apart
from torch.utils.data import DataLoader, Dataset

import ptycho_fast as pf

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH, C, BATCHES = 32, 4, 60
TARGET, LIMIT = 5.0, 1.05


def source(N: int) -> pf.GroupedDataset:
    """Return the groups of a jittered raster, as many as an epoch needs."""
    n = 8000 if N == 64 else 4000
    rng = np.random.default_rng(0)
    patterns = np.empty((n, N, N), np.float32)
    for pattern in patterns:
        rng.random(out=pattern, dtype=np.float32)
    side = int(np.ceil(np.sqrt(n)))
    raster = np.stack([np.arange(n) % side, np.arange(n) // side], 1) * N / 8
    scan = pf.Scan(raster + rng.uniform(-1, 1, raster.shape), patterns)
    return pf.GroupedDataset(scan, pf.group_positions(scan.positions, BATCH * BATCHES, seed=0))


class SingleGroups(Dataset[dict[str, Any]]):
    """What people write: one group an item, for the DataLoader to stack."""

    def __init__(self, data: pf.GroupedDataset, layout: str) -> None:
        self.layout = layout
        self.patterns, self.positions = data.scans[0].diffraction, data.scans[0].positions
        self.indices = data.groups[0].indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Return one group."""
        indices = self.indices[row]
        coords = self.positions[indices].T[np.newaxis]
        offsets = coords.mean(axis=-1, keepdims=True)
        patterns = self.patterns[indices]
        if self.layout == "channels_last":
            patterns = np.ascontiguousarray(patterns.transpose(1, 2, 0))
        return {
            "diffraction": torch.from_numpy(patterns),
            "coords_relative": torch.from_numpy(offsets - coords),
            "coords_offsets": torch.from_numpy(offsets),
            "nn_indices": torch.from_numpy(indices),
        }


def loader(rival: str, workers: int, layout: str, data: pf.GroupedDataset) -> Any:
    """Return what is iterated over, epoch after epoch."""
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
    if rival == "to_torch":
        feed = data.to_torch(BATCH, shuffle=True, layout=layout)
        return DataLoader(feed, batch_size=None, **options)
    return DataLoader(SingleGroups(data, layout), BATCH, shuffle=True, **options)


RIVALS = (("to_torch", 0), ("to_torch", 2), ("single groups", 0), ("single groups", 2))


def run_here(rival: str, workers: int, layout: str, N: int, repeats: int) -> dict[str, float]:
    """Run one rival over whole epochs and check a batch."""
    torch.set_num_threads(2)
    data = source(N)
    batches = loader(rival, workers, layout, data)

    def epoch() -> tuple[NDArray[Any], NDArray[Any], int]:
        count = 0
        for batch in batches:
            count += len(batch["diffraction"])
        return batch["diffraction"].numpy(), batch["nn_indices"].numpy(), count

    found, (patterns, indices, count) = measure(epoch, repeats)
    assert count == BATCH * BATCHES
    expected = reference.gather(data.scans[0].diffraction, indices)
    if layout == "channels_first":
        expected = expected.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(patterns, expected)
    return found


def train_here(N: int, blocks: int) -> dict[str, float]:
    """Take blocks of steps, fed and not, in turns; return medians of seconds per step."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    width, skipped, steps = (32 if N == 64 else 16), 6, 20  # 3 batches lie ready at the start
    network = torch.nn.Sequential(
        torch.nn.Conv2d(C, width, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(width, width, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(width, 2 * C, 3, padding=1),
    )
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)

    def step(batch: dict[str, Any]) -> None:
        optimizer.zero_grad()
        loss = network(batch["diffraction"]).square().mean()
        torch.autograd.backward(loss)
        optimizer.step()

    feed = source(N).to_torch(BATCH, shuffle=True)
    constant = next(iter(feed))
    times: dict[str, list[float]] = {"constant": [], "fed": []}
    for block in range(2 * blocks):
        kind = ("constant", "fed")[(block + block // 2) % 2]
        batches = iter(feed if kind == "fed" else [constant] * len(feed))
        for number in range(skipped + steps):
            start = time.perf_counter()
            step(next(batches))
            if number >= skipped:
                times[kind].append(time.perf_counter() - start)
    return {kind: statistics.median(found) for kind, found in times.items()}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--blocks", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.here:
        job, *rest = json.loads(arguments.here)
        print(json.dumps({"run": run_here, "train": train_here}[job](*rest)))  # type: ignore[operator]
        return
    print("| N | layout | feed | workers | ms a batch | GB/s | x to_torch |")
    print("|---|---|---|---|---|---|---|")
    for N in (64, 128):
        for layout in ("channels_first", "channels_last"):
            first = 0.0
            for rival, workers in RIVALS:
                job = ["run", rival, workers, layout, N, arguments.repeats]
                each = run_apart(__file__, job)["seconds"] / BATCHES
                first = first or each
                rate = 4 * BATCH * C * N**2 / each / 1e9
                print(
                    f"| {N} | {layout} | {rival} | {workers} | {1e3 * each:.2f} | {rate:.2f} "
                    f"| {each / first:.1f} |",
                    flush=True,
                )
    print(f"\nThe goal: single groups take at least {TARGET:.0f} x as long.\n")
    print("| N | step with a constant batch, ms | fed by to_torch, ms | ratio |")
    print("|---|---|---|---|")
    for N in (64, 128):
        found = run_apart(__file__, ["train", N, arguments.blocks])
        plain, fed = found["constant"], found["fed"]
        print(f"| {N} | {1e3 * plain:.1f} | {1e3 * fed:.1f} | {fed / plain:.3f} |", flush=True)
    print(f"\nThe goal: at most {LIMIT} x, for a step of 20 ms or more.")


if __name__ == "__main__":
    main()
