"""Pictures of scans: read back as pixels."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.plot import write_png
from ptycho_fast.plot.panels import COLORS, OUTLINE_COLOR, POSITION_COLOR

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

matplotlib_image = pytest.importorskip("matplotlib.image")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def scan() -> pf.Scan:
    return pf.simulate_scan(60, 32, seed=0)


def of_color(path: Path, color: str) -> NDArray[np.intp]:
    """Return row and column of the pixels of a colour, (pixels, 2)."""
    pixels = np.round(matplotlib_image.imread(path)[..., :3] * 255).astype(int)
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.argwhere((pixels == rgb).all(axis=-1))


def test_groups_are_drawn_on_the_scan(tmp_path: Path, scan: pf.Scan) -> None:
    write_png(scan.plot(), tmp_path / "scan.png")
    write_png(pf.group_positions(scan.positions, seed=1).plot(scan), tmp_path / "groups.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["groups.png", "scan.png"]
    for color in COLORS:
        assert len(of_color(tmp_path / "scan.png", color)) == 0
        assert len(of_color(tmp_path / "groups.png", color)) > 100
    assert len(of_color(tmp_path / "scan.png", POSITION_COLOR)) > 60


def test_rows_of_the_object_run_down_and_columns_right(tmp_path: Path) -> None:
    def middle(positions: NDArray[np.float64]) -> NDArray[np.float64]:
        # Two far corners, so that every picture has the same axes.
        positions = np.concatenate([positions, [[0.0, 0.0], [100.0, 100.0]]])
        scan = pf.Scan(positions, np.ones((len(positions), 4, 4)), object=np.ones((101, 101)) + 0j)
        write_png(scan.plot(), tmp_path / "scan.png")
        mean: NDArray[np.float64] = of_color(tmp_path / "scan.png", POSITION_COLOR).mean(axis=0)
        return mean

    cluster = np.random.default_rng(0).uniform(0, 20, (200, 2))
    origin = middle(cluster)
    large_x, large_y = (middle(cluster + np.array(shift)) for shift in ((80, 0), (0, 80)))
    assert large_x[1] > origin[1] + 200
    assert abs(large_x[0] - origin[0]) < 20
    assert large_y[0] > origin[0] + 200
    assert abs(large_y[1] - origin[1]) < 20


def test_scan_without_object_shows_its_mean_pattern(tmp_path: Path, scan: pf.Scan) -> None:
    write_png(scan.plot(), tmp_path / "with.png")
    write_png(dataclasses.replace(scan, object=None).plot(), tmp_path / "without.png")
    narrow, wide = (
        matplotlib_image.imread(tmp_path / name).shape[1] for name in ("with.png", "without.png")
    )
    assert wide == 3 * narrow // 2


def test_many_positions_are_drawn_as_a_density(tmp_path: Path) -> None:
    # Twice as dense on the right.
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(0, 300, 3000), rng.uniform(300, 600, 6000)])
    positions = np.stack([x, rng.uniform(0, 600, 9000)], axis=1)
    scan = pf.Scan(positions, np.broadcast_to(np.float32(1), (9000, 8, 8)))
    write_png(scan.plot(), tmp_path / "scan.png")
    assert len(of_color(tmp_path / "scan.png", POSITION_COLOR)) == 0
    pixels = matplotlib_image.imread(tmp_path / "scan.png")[..., :3]
    panel = pixels[200:650, 100:650]  # inside the first
    middle = panel.shape[1] // 2
    left, right = panel[:, 50 : middle - 50], panel[:, middle + 50 : -50]
    assert right[..., 0].mean() < left[..., 0].mean() - 0.1  # the denser, the bluer


def test_groups_on_a_large_object_are_outlined_in_an_inset(tmp_path: Path, scan: pf.Scan) -> None:
    small = scan, pf.group_positions(scan.positions, seed=0)
    positions = np.random.default_rng(0).uniform(0, 4000, (2000, 2))
    large = pf.Scan(positions, np.broadcast_to(np.float32(1), (2000, 8, 8)))
    write_png(small[1].plot(small[0]), tmp_path / "small.png")
    write_png(pf.group_positions(positions, seed=0).plot(large), tmp_path / "large.png")
    for name in ("small.png", "large.png"):
        assert len(of_color(tmp_path / name, OUTLINE_COLOR)) > 30, name


@pytest.mark.parametrize("dtype", [np.float64, np.uint16])
@pytest.mark.parametrize(("n", "gridsize"), [(1, 1), (4, 2), (30, 3)])
def test_any_scan_can_be_drawn(tmp_path: Path, n: int, gridsize: int, dtype: type) -> None:
    scan = pf.simulate_scan(n, 9, seed=0)
    scan = dataclasses.replace(scan, object=None, diffraction=scan.diffraction.astype(dtype))
    write_png(pf.group_positions(scan.positions, gridsize=gridsize).plot(scan), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)


def test_coinciding_positions_can_be_drawn(tmp_path: Path) -> None:
    scan = pf.Scan(np.full((6, 2), 8.0), np.zeros((6, 4, 4)))
    write_png(pf.group_positions(scan.positions, seed=0).plot(scan), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)


def test_groups_of_another_scan_are_refused(tmp_path: Path, scan: pf.Scan) -> None:
    groups = pf.group_positions(scan.positions[:50], seed=0)
    with pytest.raises(ValueError, match="from 50 positions, but the scan has 60"):
        write_png(groups.plot(scan), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_no_groups_are_refused(scan: pf.Scan) -> None:
    none = np.empty((0, 4), np.int32)
    with pytest.raises(ValueError, match="There are no groups"):
        pf.Groups(none, none[:, 0], scan.positions, 7, seed=0).plot(scan)


def test_missing_folder_is_an_os_error(tmp_path: Path, scan: pf.Scan) -> None:
    with pytest.raises(OSError, match="nowhere"):
        write_png(scan.plot(), tmp_path / "nowhere" / "a.png")


def test_failure_while_drawing_leaves_the_old_picture(
    tmp_path: Path, scan: pf.Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(b"old")

    def full_disk(self: object, file: object, **_: object) -> None:
        file.write(PNG)  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_png(scan.plot(), tmp_path / "a.png")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_without_matplotlib_the_error_says_what_to_install(
    tmp_path: Path, scan: pf.Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "ptycho_fast\[plot\]"'):
        write_png(scan.plot(), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_matplotlib_is_imported_only_to_draw_and_no_backend_is_chosen(tmp_path: Path) -> None:
    program = (
        "import sys, ptycho_fast as pf, ptycho_fast.plot, ptycho_fast.cli\n"
        "assert 'matplotlib' not in sys.modules\n"
        "scan = pf.simulate_scan(9, 8, seed=0)\n"
        f"scan.plot().savefig({str(tmp_path / 'a.png')!r})\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_groups_alone_and_coverage_can_be_drawn(tmp_path: Path, scan: pf.Scan) -> None:
    groups = pf.group_positions(scan.positions, seed=1)
    write_png(groups.plot(), tmp_path / "alone.png")
    for color in COLORS:
        assert len(of_color(tmp_path / "alone.png", color)) > 100
    for gridsize, panels in ((1, 2), (2, 3)):
        found = pf.coverage(scan, pf.group_positions(scan.positions, gridsize=gridsize, seed=0))
        figure = found.plot()
        assert len(figure.axes) == panels + 1  # and the colour bar
        write_png(figure, tmp_path / "coverage.png")


def test_notebooks_show_figures(scan: pf.Scan) -> None:
    figure: Any = scan.plot()
    shown = figure._repr_png_()  # what a notebook calls
    assert matplotlib_image.imread(io.BytesIO(shown)).shape == (840, 1584, 4)


def test_an_image_lies_on_the_grid_of_the_positions() -> None:
    made = pf.Reconstruction(
        object=np.ones((20, 30), np.complex64),
        origin=(-4, 7),
        probe=np.ones((1, 8, 8), np.complex64),
        positions=np.array([[4.0, 5.5]]),
        coverage=np.ones((20, 30), np.float32),
        deviance=1.0,
        mu=0.0,
    )
    axes = made.plot().axes[0]
    assert axes.get_xlim() == (-4.5, 25.5)
    assert axes.get_ylim() == (26.5, 6.5)
