"""The networks by name: what they take and make, how they start, and what their stages see."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

torch = pytest.importorskip("torch")

from ptycho_fast.models import (  # noqa: E402
    PtychoModel,
    list_architectures,
    register_architecture,
)
from ptycho_fast.models.architectures import build_architecture  # noqa: E402
from ptycho_fast.models.inputs import count_features, make_features  # noqa: E402
from ptycho_fast.models.network import PatchNetwork  # noqa: E402

if TYPE_CHECKING:
    from numpy.typing import NDArray

OURS = ("cnn", "fno", "hybrid", "hybrid_resnet")
CASES = list(itertools.product(OURS, (16, 50, 64, 104), (1, 4)))


def build(name: str, N: int, C: int, seed: int = 0, **options: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_architecture(
            name, features=count_features(C), channels=C, N=N, **{"width": 8, **options}
        )


def noise(*shape: int, seed: int = 0) -> Any:
    return torch.from_numpy(np.random.default_rng([seed, *shape]).normal(size=shape)).float()


def features(B: int, C: int, N: int, seed: int = 0) -> Any:
    return noise(B, count_features(C), N, N, seed=seed)


def stirred(network: Any, size: float = 0.1) -> Any:
    """No parameter is 0 any more, as after some training."""
    with torch.no_grad():
        for i, parameter in enumerate(network.parameters()):
            real = torch.view_as_real(parameter) if parameter.is_complex() else parameter
            real += size * noise(*real.shape, seed=i)
    return network


# --- ours ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "N", "C"), CASES)
def test_untrained_networks_return_an_empty_object(name: str, N: int, C: int) -> None:
    """Exactly 1 everywhere: the first step is the same whatever the pattern."""
    network = build(name, N, C)
    patches = network(100 * features(2, C, N))
    assert patches.shape == (2, C, N, N)
    assert patches.dtype == torch.complex64
    assert torch.equal(patches, torch.ones_like(patches))


@pytest.mark.parametrize(("name", "N", "C"), CASES)
def test_every_parameter_has_a_gradient(name: str, N: int, C: int) -> None:
    """Layers that begin at 0 hide those before them: after some steps none is hidden."""
    network = build(name, N, C)
    seen = features(2, C, N)
    target = torch.polar(1 + 0.1 * noise(2, C, N, N), noise(2, C, N, N, seed=1))
    descent = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for _ in range(4):
        descent.zero_grad()
        loss = (network(seen) - target).abs().square().mean()
        torch.autograd.backward(loss)
        descent.step()
        losses.append(float(loss.detach()))
    asleep = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().any()
    ]
    assert asleep == []
    assert all(parameter.grad.abs().isfinite().all() for parameter in network.parameters())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", OURS)
def test_a_seed_makes_the_same_network(name: str) -> None:
    one, same, other = (build(name, 32, 1, seed=seed) for seed in (3, 3, 4))
    assert one.state_dict().keys() == same.state_dict().keys()
    for key, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[key])
    assert any(not torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())
    seen = features(2, 1, 32)
    with torch.no_grad():
        made = stirred(one)(seen)
        assert torch.equal(made, stirred(same)(seen))
        assert not torch.equal(made, torch.ones_like(made))


@pytest.mark.parametrize("name", OURS)
def test_groups_of_a_batch_do_not_see_each_other(name: str) -> None:
    network = stirred(build(name, 32, 4))
    seen = features(3, 4, 32)
    with torch.no_grad():
        together = network(seen)
        for b in range(3):
            assert (network(seen[b : b + 1]) - together[b : b + 1]).abs().max() < 1e-3
        other = seen.clone()
        other[0] *= -1
        assert (network(other)[1:] - together[1:]).abs().max() < 1e-3
        assert (network(other)[0] - together[0]).abs().max() > 0.1


@pytest.mark.parametrize("name", OURS)
def test_moduli_stay_within_their_bounds(name: str) -> None:
    """1/20 to 20 times the mean, whatever comes in."""
    network = stirred(build(name, 16, 1), 2.0)
    with torch.no_grad():
        modulus = network(30 * features(8, 1, 16)).abs()
    assert modulus.isfinite().all()
    assert np.exp(-3) * 0.999 < modulus.min() < 0.5
    assert 1.5 < modulus.max() < np.exp(3) * 1.001


@pytest.mark.parametrize("name", OURS)
@settings(max_examples=12, deadline=None)
@given(st.integers(4, 40), st.integers(1, 4))
def test_networks_take_any_even_side(name: str, half: int, C: int) -> None:
    N = 2 * half
    network = stirred(build(name, N, C))
    with torch.no_grad():
        patches = network(features(1, C, N))
    assert patches.shape == (1, C, N, N)
    assert torch.view_as_real(patches).isfinite().all()
    assert len(np.unique(patches.numpy())) > N * N / 2  # pixels have values of their own


@pytest.mark.parametrize("name", OURS)
def test_a_feature_changes_the_patch_mostly_around_it(name: str) -> None:
    """Padding to a multiple of what the network halves does not move the patch."""
    N = 50
    network = stirred(build(name, N, 1))
    with torch.no_grad():
        plain = network(torch.zeros(1, 4, N, N))
        for row, column in ((8, 40), (25, 25), (41, 10)):
            seen = torch.zeros(1, 4, N, N)
            seen[..., row, column] = 3
            change = (network(seen) - plain).abs()[0, 0]
            rows, columns = torch.meshgrid(torch.arange(N), torch.arange(N), indexing="ij")
            near = ((rows - row).abs() <= 5) & ((columns - column).abs() <= 5)
            assert change[near].mean() > 2 * change[~near].mean()


@pytest.mark.parametrize("name", OURS)
def test_wider_networks_have_more_parameters(name: str) -> None:
    sizes = [PtychoModel(name, N=16, width=width).n_parameters for width in (4, 8, 16)]
    assert sizes[0] < sizes[1] < sizes[2]


# --- the registry --------------------------------------------------------------------------------


class Phase(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    """Made of one convolution."""

    def __init__(self, *, features: int, channels: int, N: int, sharpness: float = 1.0) -> None:
        super().__init__()
        self.made_with = features, channels, N, sharpness
        self.layer = torch.nn.Conv2d(features, channels, 3, padding=1)

    def forward(self, features: Any) -> Any:
        phase = self.layer(features)
        return torch.polar(torch.ones_like(phase), phase)


@pytest.mark.usefixtures("registry")
def test_a_registered_class_is_an_architecture() -> None:
    assert set(OURS) <= set(list_architectures())
    assert "phase" not in list_architectures()
    assert register_architecture("phase")(Phase) is Phase
    assert "phase" in list_architectures()
    assert list(list_architectures()) == sorted(list_architectures())
    made: Any = build_architecture("phase", features=13, channels=4, N=20, sharpness=2.5)
    assert isinstance(made, Phase)
    assert made.made_with == (13, 4, 20, 2.5)
    model = PtychoModel("phase", N=20, gridsize=2, stages=1, sharpness=0.5)
    assert model.architecture == "phase"
    assert model.n_parameters == 4 * 13 * 9 + 4
    # Registering the same class again, as a notebook's cell does, is nothing.
    register_architecture("phase")(Phase)


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("name", ["phase", *OURS])
def test_a_taken_name_is_refused(name: str) -> None:
    if name == "phase":
        register_architecture("phase")(Phase)
    else:
        build(name, 16, 1)

    class Other(Phase):
        pass

    with pytest.raises(ValueError, match=f"architecture '{name}' is registered already. Choose"):
        register_architecture(name)(Other)
    assert not isinstance(build_architecture(name, features=4, channels=1, N=16), Other)


def test_unknown_names_and_options_are_refused() -> None:
    listed = "cnn, fno, hybrid, hybrid_resnet"
    with pytest.raises(ValueError, match=rf"architecture must be one of {listed}.*got 'unet'\."):
        PtychoModel("unet", N=16)
    for name in OURS:
        message = f"architecture '{name}' does not take these options: .*'depth'"
        with pytest.raises(ValueError, match=message):
            PtychoModel(name, N=16, depth=3)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("value", [0, -4, 2.5, "8", None])
def test_widths_that_are_not_counts_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"width must be a whole number in 1\.\."):
        PtychoModel(name, N=16, width=value)


# --- stages --------------------------------------------------------------------------------------


def centred(wave: NDArray[Any], transform: Any = np.fft.fft2) -> NDArray[Any]:
    axes = (-2, -1)
    field: NDArray[Any] = np.fft.fftshift(
        transform(np.fft.ifftshift(wave, axes=axes), norm="ortho"), axes=axes
    )
    return field


def make_probe(N: int, modes: int) -> NDArray[np.complex64]:
    axis = np.arange(N) - N // 2
    bell = np.exp(-(axis[:, None] ** 2 + axis**2) / (N / 3) ** 2)
    rng = np.random.default_rng(N)
    rough = rng.normal(size=(modes, N, N)) + 1j * rng.normal(size=(modes, N, N))
    return (20 * bell * rough).astype(np.complex64)


def told(patches: Any) -> tuple[type, list[Any]]:
    """A network that says what it is told to, and keeps what it has seen."""
    seen: list[Any] = []

    class Told(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self, *, features: int, channels: int, N: int) -> None:
            super().__init__()
            self.count = features

        def forward(self, features: Any) -> Any:
            assert features.shape[1] == self.count
            seen.append(features)
            return patches

    return Told, seen


@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_a_second_stage_sees_the_step_of_epie(
    registry: dict[str, Any], modes: int, masked: bool
) -> None:
    """What the patches leave unexplained, relative to them; nothing where they explain it all."""
    N, C = 12, 4
    rng = np.random.default_rng(1)
    probe = make_probe(N, modes)
    truth, made = (
        rng.uniform(0.5, 1, (2, C, N, N)) * np.exp(1j * rng.normal(size=(2, C, N, N)))
        for _ in range(2)
    )

    def amplitude_of(patches: NDArray[Any]) -> NDArray[Any]:
        parts = [np.abs(centred(patches * mode)) ** 2 for mode in probe.astype(complex)]
        root: NDArray[Any] = np.sqrt(np.sum(parts, axis=0))
        return root

    mask = rng.random((N, N)) < 0.7 if masked else np.ones((N, N), bool)
    amplitude = amplitude_of(truth)
    hot = np.where(mask, amplitude, np.nan)
    # The step of ePIE with all modes, from the definition.
    modelled = amplitude_of(made)
    excess = np.where(mask, amplitude / (modelled + 1e-3) - 1, 0)
    intensity = (np.abs(probe.astype(complex)) ** 2).sum(axis=0)
    step = np.zeros(made.shape, complex)
    for mode in probe.astype(complex):
        step += mode.conj() * centred(excess * centred(mode * made), np.fft.ifft2)
    step /= intensity + 0.05 * intensity.max()
    step *= made.conj() / (np.abs(made) ** 2 + 1e-2)

    for said, expected in ((made, step), (truth, np.zeros(made.shape))):
        Told, seen = told(torch.from_numpy(said.astype(np.complex64)))
        registry["told"] = Told
        network = PatchNetwork("told", N=N, channels=C, probe=probe, stages=2)
        network.set_mask(mask if masked else None)
        amplitudes = torch.from_numpy(hot.astype(np.float32))
        out = network(amplitudes)
        first, second = seen
        # What is unknown is taken to be what the probe alone would give.
        filled = np.where(mask, amplitude, amplitude_of(np.ones(made.shape)))
        expected_first = make_features(
            torch.from_numpy(filled.astype(np.float32)), torch.from_numpy(probe)
        )
        torch.testing.assert_close(first, expected_first, rtol=1e-4, atol=1e-5)
        assert torch.equal(second[:, : first.shape[1]], first)
        rest = second[:, first.shape[1] :].numpy().reshape(2, 4, C, N, N)
        # 1e-3 beside the modelled amplitude is all that is left where they explain it.
        small = 2e-3 * max(1.0, float(np.abs(step).max()))
        np.testing.assert_allclose(rest[:, 0], expected.real, atol=small)
        np.testing.assert_allclose(rest[:, 1], expected.imag, atol=small)
        np.testing.assert_allclose(rest[:, 2], np.log(np.abs(said)), atol=1e-5)
        np.testing.assert_allclose(rest[:, 3], np.angle(said), atol=1e-5)
        # Each stage says by what the patches before are to be multiplied.
        assert len(out) == 2
        np.testing.assert_allclose(out[0].numpy(), said, rtol=1e-6)
        np.testing.assert_allclose(out[1].numpy(), said * said, rtol=1e-5)


@pytest.mark.parametrize("stages", [1, 3])
def test_every_stage_returns_patches(stages: int) -> None:
    probe = np.full((1, 16, 16), 3, np.complex64)
    network = PatchNetwork("cnn", N=16, channels=4, probe=probe, stages=stages, width=4)
    positions = np.random.default_rng(2).uniform(0, 6, (2, 2, 4))
    made = network(noise(2, 4, 16, 16).abs(), positions)
    assert len(made) == stages
    for patches in made:
        # An object of 1 laid on a canvas and read back is 1, up to pixels hardly covered.
        torch.testing.assert_close(patches, torch.ones_like(patches), rtol=0, atol=2e-3)


def test_patches_of_a_group_agree_where_they_overlap() -> None:
    """With positions they are cut from one canvas; without, each is as the network makes it."""
    N = 16
    probe = np.full((1, N, N), 3, np.complex64)
    network = stirred(PatchNetwork("cnn", N=N, channels=4, probe=probe, width=4))
    positions = np.array([[[8.0, 10, 8, 10], [8, 8, 11, 11]]])
    amplitude = noise(1, 4, N, N).abs()
    with torch.no_grad():
        on_canvas, free = network(amplitude, positions)[-1][0], network(amplitude)[-1][0]

    def apart(patches: Any) -> float:
        one, other = patches[0][3:, 2:], patches[3][:-3, :-2]  # 2 columns and 3 rows further
        return float((one - other).abs().max())

    assert apart(on_canvas) < 1e-5
    assert apart(free) > 0.01


def test_no_gradient_flows_into_earlier_stages() -> None:
    network = stirred(
        PatchNetwork("cnn", N=16, channels=1, probe=make_probe(16, 1), stages=2, width=4)
    )
    made = network(noise(2, 1, 16, 16).abs())
    torch.autograd.backward(made[1].abs().sum())
    first, second = network.stages
    assert all(parameter.grad is None for parameter in first.parameters())
    assert any(parameter.grad.any() for parameter in second.parameters())
