"""The random scans that networks learn from, and the script that trains the learned prior."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from scans import Kind, diameter, random_scan

if TYPE_CHECKING:
    from pathlib import Path

    import ptycho_fast as pf

NUMBERS = range(40)


@pytest.fixture(scope="module")
def scans() -> list[pf.Scan]:
    return [random_scan(number) for number in NUMBERS]


def modes_of(scan: pf.Scan) -> np.ndarray:
    assert scan.probe is not None
    return np.reshape(scan.probe, (-1, scan.N, scan.N))


def test_a_scan_follows_from_its_number(scans: list[pf.Scan]) -> None:
    again = random_scan(7)
    np.testing.assert_array_equal(again.diffraction, scans[7].diffraction)
    np.testing.assert_array_equal(again.object, scans[7].object)
    assert not np.array_equal(scans[7].positions[:20], scans[8].positions[:20])


def test_patterns_are_counts_and_as_bright_as_told(scans: list[pf.Scan]) -> None:
    for scan in scans:
        counts = np.square(scan.diffraction[:], dtype=np.float64)
        np.testing.assert_allclose(counts, np.rint(counts), atol=1e-2, rtol=1e-6)
        photons = scan.metadata["photons"]
        spread = 6 * np.sqrt(photons / len(scan))
        assert counts.sum() / len(scan) == pytest.approx(photons, abs=spread)


def test_patterns_are_those_of_the_probe_on_the_object(scans: list[pf.Scan]) -> None:
    for scan in scans:
        assert scan.object is not None
        whole = np.array(np.rint(scan.positions[0]), int)
        half = scan.N // 2
        rows, columns = (slice(at - half, at - half + scan.N) for at in whole[::-1])
        patch = scan.object[rows, columns]
        assert patch.shape == (scan.N, scan.N)
        far = np.fft.fftshift(np.fft.fft2(modes_of(scan) * patch, norm="ortho"), axes=(1, 2))
        expected = (np.abs(far) ** 2).sum(axis=0)
        counts = np.square(scan.diffraction[0], dtype=np.float64)
        # The position is rounded here, and there is noise: alike, but not equal.
        assert np.corrcoef(expected.ravel(), counts.ravel())[0, 1] > 0.5 or counts.sum() < 1000


def test_probes_and_objects_are_as_told(scans: list[pf.Scan]) -> None:
    number = set()
    for scan in scans:
        modes = modes_of(scan)
        number.add(len(modes))
        assert np.sum(np.abs(modes) ** 2) == pytest.approx(1, rel=1e-4)
        assert scan.object is not None
        assert 0.01 < np.abs(scan.object).min() < np.abs(scan.object).max() <= 1.2
    assert number >= {1, 2}


def test_neighbours_overlap_as_told() -> None:
    kind = Kind(sizes=(32,), patterns=(90, 91), overlap=(0.5, 0.5))
    for number in range(10):
        scan = random_scan(number, kind)
        spacing = max(1.0, 0.5 * diameter(modes_of(scan)))
        area = np.ptp(scan.positions[:, 0]) * np.ptp(scan.positions[:, 1])
        assert area / len(scan) == pytest.approx(spacing**2, rel=0.5)


def test_the_diameter_is_that_of_a_disc() -> None:
    y, x = np.mgrid[:64, :64] - 32
    disc = (np.hypot(x, y) <= 20).astype(np.complex64)[np.newaxis]
    assert diameter(disc) == pytest.approx(2 * 20 * np.sqrt(0.9), rel=0.02)


def test_training_improves_the_image_it_trains_on(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    from learned_prior import Example, judge, load, train, write_example  # noqa: PLC0415

    threads = torch.get_num_threads()
    number = 100_001
    for one in (0, number):
        write_example(tmp_path, None, one)
    # Judged by the image it learns from, a network must become better than none.
    (tmp_path / "0.npz").write_bytes((tmp_path / f"{number}.npz").read_bytes())
    for folder in ("first", "second"):
        train([tmp_path], tmp_path / folder, iterations=30, seed=3)
    torch.set_num_threads(threads)
    network = load(tmp_path / "first")
    fall = judge(network, [Example(tmp_path / f"{number}.npz")])
    assert fall[0] < -0.03
    weights = [tmp_path / folder / "learned_prior.safetensors" for folder in ("first", "second")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert weights[0].stat().st_size < 1e6
    assert (tmp_path / "first" / "log.csv").read_text().startswith("iteration,loss,error,phase")
