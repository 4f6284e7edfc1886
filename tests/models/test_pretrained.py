"""The pretrained network: scans that it never saw, other sizes, and training that continues."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.canvas import place

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("skimage")

from ptycho_fast.metrics import score  # noqa: E402
from ptycho_fast.models import PtychoModel  # noqa: E402
from ptycho_fast.models.building import build_network  # noqa: E402
from ptycho_fast.models.training.thinning import halves  # noqa: E402
from ptycho_fast.reconstruction.learned import trained  # noqa: E402
from scans import Kind, random_scan  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


def scan_of(N: int, n: int = 80, seed: int = 7, **options: Any) -> Any:
    return pf.simulate_scan(n_positions=n, N=N, seed=seed, **options)


def untrained(N: int) -> PtychoModel:
    """The same, but its network changes nothing."""
    model = PtychoModel.pretrained(N=N)
    model.network = build_network(model.model_config, np.ones((1, 1, 1), np.complex64)).eval()
    return model


def image(model: PtychoModel, scan: Any) -> Any:
    return model.infer(scan).object


def error(made: Any, scan: Any) -> float:
    whole = place(made.object, made.origin, scan.object.shape)
    return score(whole, scan.object, scan.positions, scan.N).phase_rmse


@pytest.mark.parametrize("N", [32, 50, 64])
def test_unseen_dark_scans_are_imaged(N: int) -> None:
    """Better than by the iterations alone, at any even N."""
    models = untrained(N), PtychoModel.pretrained(N=N)
    gains = []
    for number in (200_000, 200_002, 200_003):  # training had smaller numbers
        scan = random_scan(number, Kind((N,), (100, 120), (3e2, 3e3), (0.5, 0.7)))
        told = replace(scan, object=None)
        plain, learned = (phase_error(model.infer(told), scan) for model in models)
        gains.append(learned / plain)
    assert np.exp(np.log(gains).mean()) < 0.97  # 0.90 to 0.95


def phase_error(made: Any, scan: Any) -> float:
    """Root mean square error of the phase where there is light, of any scan."""
    x, y = made.origin
    turned = made.object * place(scan.object, (-x, -y), made.object.shape).conj()
    some = turned[made.coverage > 0.1 * made.coverage.max()]
    return float(np.sqrt((np.angle(some * np.exp(-1j * np.angle(some.sum()))) ** 2).mean()))


def test_an_unseen_bright_scan_is_imaged_nearly_as_by_reconstruct() -> None:
    scan = scan_of(32, n=150)
    made = PtychoModel.pretrained(N=32).infer(scan)
    assert made.metrics["phase_rmse"] < 3 * error(pf.reconstruct(scan, probe="fixed"), scan)
    assert made.metrics["pattern_correlation"] > 0.99


def test_the_same_weights_give_the_same_image() -> None:
    scan = scan_of(32)
    one, other = (image(PtychoModel.pretrained(N=32), scan) for _ in range(2))
    assert np.array_equal(one, other)


def test_the_probe_comes_from_the_scan() -> None:
    """A scan with a probe that the network never saw; a wrong one spoils the image."""
    scan = scan_of(32)
    axis = np.arange(32) - 16
    probe = np.asarray(scan.probe) * np.exp(1j * 0.02 * (axis[:, None] ** 2 + axis**2))
    seen = seen_with(scan, probe.astype(np.complex64))
    model = PtychoModel.pretrained(N=32)
    wrong = error(model.infer(replace(seen, probe=scan.probe)), scan)
    assert error(model.infer(seen), scan) < 0.2 * wrong
    with pytest.raises(ValueError, match="The scan has no probe"):
        model.infer(replace(seen, probe=None))


def seen_with(scan: Any, probe: Any) -> Any:
    """The same object and positions, seen with another probe, without noise."""
    patches = pf.extract_patches(scan.object, scan.positions[:, :, None], scan.N)[..., 0]
    waves = np.fft.fft2(np.fft.ifftshift(probe * patches, axes=(1, 2)), norm="ortho")
    amplitude = 1e3 * np.abs(np.fft.fftshift(waves, axes=(1, 2)))
    return replace(scan, probe=probe, diffraction=amplitude.astype(np.float32), energies=None)


def test_bad_pixels_are_ignored() -> None:
    scan = scan_of(32)
    mask = np.random.default_rng(0).random((32, 32)) > 0.02
    spoiled = np.array(scan.diffraction)
    spoiled[:, ~mask] = 1e4
    model = PtychoModel.pretrained(N=32)
    made: Any
    clean: Any
    made, clean = (
        model.infer(replace(scan, diffraction=patterns, mask=mask, energies=None))
        for patterns in (spoiled, scan.diffraction)
    )
    assert np.array_equal(made.object, clean.object)
    assert error(made, scan) < 2 * error(model.infer(scan), scan)
    for name, value in clean.metrics.items():
        assert made.metrics[name] == value


def test_patches_are_cut_from_the_image() -> None:
    scan = scan_of(32, n=30)
    model = PtychoModel.pretrained(N=32)
    whole: Any = model.infer(scan)
    parts: Any = model.infer(scan, stitching=False)
    where = scan.positions - np.array(whole.origin)
    expected = pf.extract_patches(whole.object, where[:, :, None], 32)[..., 0]
    assert np.array_equal(parts.positions, scan.positions)
    lit = np.abs(scan.probe) > 1e-3 * np.abs(scan.probe).max()
    np.testing.assert_allclose(parts.patches[:, lit], expected[:, lit], atol=1e-4)


def test_some_patterns_lie_on_the_canvas_of_all() -> None:
    scan = scan_of(32)
    model = PtychoModel.pretrained(N=32)
    some: Any = model.infer(scan, n_groups=20)
    whole: Any = model.infer(scan)
    assert some.object.shape == whole.object.shape
    assert some.origin == whole.origin
    assert 0 < np.count_nonzero(some.coverage > 0) < np.count_nonzero(whole.coverage > 0)
    both = some.coverage > 0.3 * some.coverage.max()
    turned = some.object[both] * whole.object[both].conj()
    angle = np.angle(turned * np.exp(-1j * np.angle(turned.sum())))
    assert np.sqrt((angle**2).mean()) < 0.2


def test_some_patterns_of_a_file_keep_their_bad_pixels(tmp_path: Path) -> None:
    scan = scan_of(32)
    counts = np.rint(np.square(scan.diffraction)).astype(np.uint32)
    counts[np.random.default_rng(0).random(counts.shape) < 0.02] = 2**32 - 1  # saturated
    path = tmp_path / "scan.npz"
    x, y = scan.positions.T
    np.savez(path, xcoords=x, ycoords=y, diff3d=counts, probeGuess=scan.probe)
    model = PtychoModel.pretrained(N=32)
    loaded: Any
    left: Any
    loaded, left = (
        model.infer(pf.read_scan(path, counts=True, load=load), n_groups=20)
        for load in (True, False)
    )
    assert np.array_equal(left.object, loaded.object)


def test_groups_are_imaged_as_scans_are() -> None:
    """Training sees groups: the image of one is that of a scan of its patterns."""
    scan = scan_of(32, n=40)
    mask = np.random.default_rng(0).random((32, 32)) > 0.02
    model = PtychoModel.pretrained(N=32)
    parts: Any = model.infer(replace(scan, mask=mask), stitching=False)
    network: Any = model.network
    network.set_mask(mask)
    amplitude = torch.from_numpy(np.where(mask, scan.diffraction, np.nan)[None])
    energy = np.square(scan.diffraction[:, mask]).sum(axis=1).mean()
    far = np.fft.fftshift(np.abs(np.fft.fft2(scan.probe, norm="ortho")) ** 2)
    probe = torch.from_numpy(scan.probe * np.float32(np.sqrt(energy / far[mask].sum())))[None, None]
    (made,) = network(amplitude, scan.positions.T[None], None, probe)
    # The canvas of a group has another margin, and iterations end before the last digit is known.
    share = np.abs(scan.probe) ** 2
    across = (share * made[0].detach().numpy().conj() * parts.patches).sum(axis=(1, 2))
    energies = [
        (share * np.abs(patches) ** 2).sum(axis=(1, 2))
        for patches in (made[0].detach().numpy(), parts.patches)
    ]
    assert (np.abs(across) ** 2 / np.prod(energies, axis=0)).min() > 0.998


def test_training_continues_from_its_weights() -> None:
    """Nothing is lost by training, and the network becomes another."""
    scan = scan_of(32, photons=2e3)
    model = PtychoModel.pretrained(N=32)
    before = error(model.infer(scan), scan)
    history = model.train(scan, n_groups=3, max_epochs=2, picture_every=0)
    assert error(model.infer(scan), scan) < 1.1 * before
    weights = model.network.stages[0].state_dict()  # type: ignore[union-attr]
    change = max(float((weights[name] - old).abs().max()) for name, old in
                 trained().state_dict().items())  # fmt: skip
    assert 1e-5 < change < 1e-2
    assert np.isfinite([row["loss"] for row in history]).all()


def test_training_is_repeatable_and_saved(tmp_path: Path) -> None:
    scan = scan_of(16, n=70)
    models = []
    for name in ("one", "other"):
        model = PtychoModel.pretrained(N=16)
        model.train(scan, n_groups=2, max_epochs=1, output=tmp_path / name, picture_every=0)
        models.append(model)
    one, other = (image(model, scan) for model in models)
    assert np.array_equal(one, other)
    assert not np.array_equal(one, image(PtychoModel.pretrained(N=16), scan))
    assert np.array_equal(one, image(PtychoModel.load(tmp_path / "one"), scan))
    model = PtychoModel.pretrained(N=16)
    model.train(
        scan, n_groups=2, max_epochs=2, output=tmp_path / "one", picture_every=0, resume=True
    )
    assert len((tmp_path / "one" / "history.csv").read_text().splitlines()) == 3


def test_several_scans_are_trained_together_each_at_its_own_exposure() -> None:
    scans = [scan_of(16, n=90, seed=1), scan_of(16, n=90, seed=2, photons=1e4)]
    model = PtychoModel("unrolled", N=16, stages=2, overlap=8)
    history = model.train(scans, n_groups=30, max_epochs=1, validation=0.4, picture_every=0)
    # The loss is 1 where only noise is left. At the exposure of the other scan, it is above 10.
    assert history[0]["loss"] < 2
    assert history[0]["validation_loss"] < 2
    for scan in scans:
        assert error(model.infer(scan), scan) < 0.5


def test_small_scans_are_trained_in_groups_of_all_that_there_is() -> None:
    scan = scan_of(16, n=40)
    model = PtychoModel.pretrained(N=16)
    assert model.probe is None
    history = model.train(scan, n_groups=4, max_epochs=1, picture_every=0)
    assert np.isfinite(history[0]["loss"])
    assert model.probe is not None


def test_halves_add_up_and_are_independent() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(20.0, (1, 1, 200, 200)).astype(np.float32)
    parts = halves(torch.from_numpy(np.sqrt(counts)), torch.Generator().manual_seed(0))
    one, other = (part.square().numpy() for part in parts)
    np.testing.assert_allclose(one + other, counts, atol=1e-3)
    np.testing.assert_allclose(one.mean(), 10, rtol=0.01)
    np.testing.assert_allclose(one.var(), 10, rtol=0.05)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02


def test_halves_of_what_is_no_count_keep_its_sum() -> None:
    values = np.full((1, 1, 8, 8), 0.3, np.float32)
    one, other = halves(torch.from_numpy(np.sqrt(values)), torch.Generator().manual_seed(0))
    np.testing.assert_allclose((one.square() + other.square()).numpy(), values, rtol=1e-5)
    values[0, 0, 0, 0] = np.nan
    one, other = halves(torch.from_numpy(values), torch.Generator().manual_seed(0))
    assert np.isfinite(one.numpy()).all()
    assert np.isnan(other.numpy()[0, 0, 0, 0])


def test_normalised_patterns_are_imaged_but_not_trained_on() -> None:
    scan = scan_of(32)
    norm = np.float32(np.sqrt(np.square(scan.diffraction).sum(axis=(1, 2)).mean()))
    dim = replace(scan, diffraction=scan.diffraction / (2 * norm), energies=None)
    model = PtychoModel.pretrained(N=32)
    assert error(model.infer(dim), scan) < 1.1 * error(model.infer(scan), scan)
    with pytest.raises(ValueError, match=r"have 0\.25 counts on average.*Multiply the amplitudes"):
        model.train(dim, n_groups=2, max_epochs=1)


def test_what_a_pretrained_model_cannot_be() -> None:
    with pytest.raises(ValueError, match="gridsize must be 1, got 2"):
        PtychoModel(architecture="unrolled", N=32, gridsize=2)
    with pytest.raises(ValueError, match="has no options, got width"):
        PtychoModel(architecture="unrolled", N=32, width=8)
    with pytest.raises(ValueError, match="not trained"):
        PtychoModel(architecture="unrolled", N=32).infer(scan_of(32))
    with pytest.raises(ValueError, match="made for N=16. Make a model with N=32; N must be even"):
        PtychoModel.pretrained(N=16).infer(scan_of(32))
    odd = pf.Scan(np.full((9, 2), 20.0), np.ones((9, 15, 15), np.float32))
    with pytest.raises(ValueError, match="made for N=16. Crop the patterns; N must be even"):
        PtychoModel.pretrained(N=16).infer(odd)


def test_a_pretrained_model_is_saved_only_after_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not trained"):
        PtychoModel.pretrained(N=16).save(tmp_path / "model")
