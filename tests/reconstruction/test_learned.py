"""The learned prior: what the network is given, and what it does to images it has never seen."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ptycho_fast.canvas import place
from ptycho_fast.reconstruction import Reconstruction, reconstruct
from scans import random_scan

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from ptycho_fast.reconstruction.counts import Counts  # noqa: E402
from ptycho_fast.reconstruction.cpu import CpuModel  # noqa: E402
from ptycho_fast.reconstruction.fit import fit  # noqa: E402
from ptycho_fast.reconstruction.learned import (  # noqa: E402
    MARGIN,
    SOFT,
    TILE,
    CanvasNetwork,
    Seen,
    expected_error,
    improved,
    see,
    trained,
)
from ptycho_fast.reconstruction.objective import Unknowns  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    import ptycho_fast as pf

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def dim() -> pf.Scan:
    """Return a scan that was held out of the training."""
    return random_scan(100_043)


@pytest.fixture(scope="module")
def smooth(dim: pf.Scan) -> Reconstruction:
    return reconstruct(dim, probe="fixed")


def phase_error(made: Reconstruction, scan: pf.Scan) -> float:
    """Root mean square error of the phase where there is light, apart from its mean."""
    assert scan.object is not None
    shape = (scan.object.shape[0], scan.object.shape[1])
    light = place(made.coverage, made.origin, shape)
    turned = place(made.object, made.origin, shape) * scan.object.conj()
    lit = light > 0.1 * light.max()
    phase = np.angle(turned * np.exp(-1j * np.angle(turned[lit].sum())))[lit]
    return float(np.sqrt(np.mean(phase**2)))


def random_seen(shape: tuple[int, int], seed: int = 0) -> Seen:
    rng = np.random.default_rng(seed)

    def wave() -> NDArray[np.complex64]:
        values: NDArray[np.complex64] = np.empty(shape, np.complex64)
        values.real, values.imag = rng.standard_normal((2, *shape))
        return values

    light = (100 * rng.random(shape)).astype(np.float32)
    return Seen(wave(), wave(), light, expected_error(light, 10.0), 1.5)


def test_a_dim_scan_it_has_never_seen_is_imaged_better(
    dim: pf.Scan, smooth: Reconstruction
) -> None:
    made = reconstruct(dim, probe="fixed", prior="learned")
    assert made.prior == "learned"
    assert smooth.prior == "smooth"
    assert made.mu == smooth.mu
    assert phase_error(made, dim) < 0.9 * phase_error(smooth, dim)
    # The smooth prior fits some noise; the network leaves out what can't be known.
    assert 0.95 < smooth.deviance < 1 < made.deviance < 1.3
    assert made.history[-1].deviance != smooth.history[-1].deviance
    assert made.history[:-1] == smooth.history
    assert any("The smooth prior alone has a deviance of" in note for note in made.notes)


def test_auto_takes_what_explains_held_out_counts_better(
    dim: pf.Scan, smooth: Reconstruction
) -> None:
    made = reconstruct(dim, probe="fixed", prior="auto")
    assert made.prior in {"smooth", "learned"}
    told = [note for note in made.notes if "held out" in note]
    assert len(told) == 1
    assert made.prior in told[0]
    other = reconstruct(dim, probe="fixed", prior=made.prior)
    np.testing.assert_array_equal(made.object, other.object)


def test_auto_keeps_the_smooth_prior_if_the_network_spoils_the_image(
    dim: pf.Scan, smooth: Reconstruction, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = CanvasNetwork()
    torch.nn.init.normal_(wrong.leave.weight, std=0.5)  # it adds noise
    monkeypatch.setattr("ptycho_fast.reconstruction.learned.trained", lambda: wrong)
    made = reconstruct(dim, probe="fixed", prior="auto")
    assert made.prior == "smooth"
    np.testing.assert_array_equal(made.object, smooth.object)


def test_an_untrained_network_changes_nothing() -> None:
    seen = random_seen((33, 50))
    image = improved(seen, CanvasNetwork())
    passed = (seen.light * np.abs(seen.object) ** 2).sum() / seen.light.sum()
    np.testing.assert_allclose(image, 1.5 * seen.object / np.sqrt(passed), rtol=1e-5)


def test_large_images_are_improved_as_if_they_were_whole() -> None:
    network = trained()
    seen = random_seen((TILE + 37, TILE + 101))
    padded = np.pad(seen.channels(), [(0, 0), (MARGIN, MARGIN + 3), (MARGIN, MARGIN + 3)])
    with torch.inference_mode():
        change = network(torch.from_numpy(padded[np.newaxis]))[0].numpy()
    height, width = seen.light.shape
    there = (slice(MARGIN, MARGIN + height), slice(MARGIN, MARGIN + width))
    expected = seen.object + seen.sigma * (change[0][there] + 1j * change[1][there])
    image = improved(seen, network)
    # As much light passes both, where it is as much as before.
    passed = (seen.light * np.abs(image) ** 2).sum() / seen.light.sum()
    assert passed == pytest.approx(1.5**2, rel=1e-4)
    factor = np.vdot(expected, image) / np.vdot(expected, expected)
    np.testing.assert_allclose(image, factor * expected, atol=2e-5)


def test_the_expected_error_is_noise_and_what_the_prior_hides() -> None:
    # The definition, on a grid of its own.
    w = np.linspace(-np.pi, np.pi, 101)[:-1]
    penalty = 7.0 * np.hypot(w[:, np.newaxis], w) ** 3
    for light in (0.5, 30.0, 4e3):
        error = np.sqrt((1 / (light + penalty)).mean())
        found = expected_error(np.full((1, 1), light, np.float32), 7.0)
        assert found[0, 0] == pytest.approx(min(error, 1), rel=0.05)
    np.testing.assert_array_equal(expected_error(np.zeros((1, 1), np.float32), 1e-6), 1)


def test_a_second_fit_is_closer_to_what_was_measured_without_noise(dim: pf.Scan) -> None:
    truth = dim.object
    assert dim.probe is not None
    assert truth is not None
    shape = (truth.shape[0], truth.shape[1])
    model = CpuModel(dim.positions, shape, dim.N)
    probe = np.sqrt(1e4) * dim.probe[np.newaxis]
    counts = Counts(model.intensity(truth, probe).astype(np.float32))
    start = Unknowns(np.ones(shape, np.complex64), probe, dim.positions)
    first = fit(model, counts, start, free=("object",), mu=3e3)
    seen = see(model, counts, first, 3e3)
    lit = seen.light > 0.3 * seen.light.max()

    def error(image: NDArray[np.complex64]) -> float:
        factor = np.vdot(image[lit], truth[lit]) / np.vdot(image[lit], image[lit])
        return float(np.linalg.norm(factor * image[lit] - truth[lit]))

    assert error(seen.object) < 0.9 * error(first.object)
    # From the second fit and the difference, whose shortening is undone, the first one follows.
    gained = seen.gained / np.sqrt(1 - np.abs(seen.gained / SOFT) ** 2)
    again = seen.size * (seen.object - seen.sigma * gained)
    np.testing.assert_allclose(again[lit], first.object[lit], atol=1e-4)


def test_the_model_in_pytorch_sees_the_same(dim: pf.Scan) -> None:
    from ptycho_fast.reconstruction.torch import TorchModel  # noqa: PLC0415

    truth = dim.object
    assert dim.probe is not None
    assert truth is not None
    shape = (truth.shape[0], truth.shape[1])
    counts = Counts(np.square(dim.diffraction[:], dtype=np.float32))
    probe = np.sqrt(1e3) * dim.probe[np.newaxis]
    seen = []
    for model in (CpuModel(dim.positions, shape, dim.N), TorchModel(dim.positions, shape, dim.N)):
        start = Unknowns(model.asarray(truth), model.asarray(probe), dim.positions)
        seen.append(see(model, counts, start, 10.0))
    np.testing.assert_allclose(seen[0].channels(), seen[1].channels(), atol=2e-3)


def test_what_is_unknown_with_a_network_is_not_given(dim: pf.Scan) -> None:
    with pytest.raises(ValueError, match=r"only known with the smooth prior, got prior='auto'"):
        reconstruct(dim, prior="auto", uncertainty=4)


def test_the_prior_is_saved(dim: pf.Scan, tmp_path: Path) -> None:
    made = reconstruct(dim, probe="fixed", prior="learned", iterations=2)
    made.save(tmp_path)
    assert Reconstruction.load(tmp_path).prior == "learned"
    assert "learned, weight" in (tmp_path / "report.html").read_text()


def test_a_reconstruction_of_an_earlier_version_had_the_smooth_prior(
    smooth: Reconstruction, tmp_path: Path
) -> None:
    smooth.save(tmp_path)
    with np.load(tmp_path / "reconstruction.npz") as held:
        arrays = {name: held[name] for name in held.files if name != "prior"}
    np.savez(tmp_path / "reconstruction.npz", **arrays)
    assert Reconstruction.load(tmp_path).prior == "smooth"


def test_without_pytorch_the_smooth_prior_is_used_and_that_is_said(
    dim: pf.Scan, smooth: Reconstruction, tmp_path: Path
) -> None:
    assert dim.probe is not None
    path = tmp_path / "scan.npz"
    np.savez(path, positions=dim.positions, diffraction=dim.diffraction[:], probe=dim.probe)
    script = """
        import sys, warnings
        sys.modules["torch"] = None
        import numpy as np, ptycho_fast as pf
        with np.load(sys.argv[1]) as held:
            scan = pf.Scan(held["positions"], held["diffraction"], probe=held["probe"])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made = pf.reconstruct(scan, probe="fixed", prior="auto")
        print(made.prior, [str(w.message) for w in caught], made.notes)
        np.save(sys.argv[2], made.object)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), path, tmp_path / "object.npy"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("smooth ")
    assert done.stdout.count("The learned prior needs PyTorch") == 2
    assert 'pip install "ptycho_fast[torch]"' in done.stdout
    np.testing.assert_array_equal(np.load(tmp_path / "object.npy"), smooth.object)


def test_the_same_call_gives_the_same_bits(dim: pf.Scan) -> None:
    first, second = (
        reconstruct(dim, probe="fixed", prior="learned", iterations=3) for _ in range(2)
    )
    np.testing.assert_array_equal(first.object, second.object)
