"""``to_torch(resident=True)``: batches gathered where the patterns are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.frames import FileFrames
from small_scans import N, in_file, make_data, make_scan
from torch_loaders import GROUPS, loader_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU"
))]  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16])
@pytest.mark.parametrize("where", ["memory", "file", "two scans"])
def test_resident_batches_equal_those_of_the_data_set(
    device: str, layout: str, normalize: bool, dtype: Any, where: str, tmp_path: Path
) -> None:
    masks = np.random.default_rng(0).random((2, N, N)) < 0.8
    scans = [make_scan(seed=seed, dtype=dtype, mask=mask) for seed, mask in enumerate(masks)]
    if where == "file":
        scans[0] = in_file(tmp_path / "stack.bin", scans[0])
    parts = [
        pf.GroupedDataset(scan, pf.group_positions(scan.positions, seed=1), normalize=normalize)
        for scan in (scans if where == "two scans" else scans[:1])
    ]
    data = pf.GroupedDataset.concatenate(parts)
    options: dict[str, Any] = {"shuffle": True, "seed": 3, "layout": layout}
    options["fields"] = ("Y", "probe", "scan_id")
    feed = data.to_torch(7, resident=True, device=device, **options)
    for epoch in (0, 1):
        for found, made in zip(feed, data.batches(7, epoch=epoch, **options), strict=True):
            assert found.keys() == made.keys()
            for key, tensor in found.items():
                assert tensor.device.type == device
                assert tensor.is_contiguous()
                wanted = torch.from_numpy(made[key])
                if key == "Y":
                    torch.testing.assert_close(tensor.cpu(), wanted, rtol=0, atol=1e-5)
                else:
                    assert torch.equal(tensor.cpu(), wanted)


def test_resident_patterns_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = FileFrames.read

    def recorded(self: FileFrames, rows: NDArray[Any], out: NDArray[Any]) -> None:
        read.extend(rows)
        original(self, rows, out)

    monkeypatch.setattr(FileFrames, "read", recorded)
    scan = in_file(tmp_path / "stack.bin", make_scan())
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, seed=3))
    feed = data.to_torch(4, resident=True)
    assert not read
    for _ in range(2):
        list(feed)
    assert sorted(read) == list(range(60))


def test_resident_feeds_are_refused_in_workers() -> None:
    feed = make_data(GROUPS).to_torch(4, resident=True)
    with pytest.raises(RuntimeError, match="Use num_workers=0"):
        list(loader_of(feed, 1))
    assert len(list(feed)) == 14
