"""The sections of ``benches/device.py`` that use PyTorch: each yields rows, answers checked.

Times are medians after a warm-up, and the clock stops when the device has finished.
"""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
from device_measures import C, Row, aim, check, row, scan_of_random, timed, wait
from measure import reference

import ptycho_fast as pf
from patch_cases import tolerance
from ptycho_fast import _core
from ptycho_fast.canvas import place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


def card(device: str, until: float) -> Iterator[Row]:
    """Say which device it is, and with what it is used."""
    import torch  # noqa: PLC0415

    if device == "cpu":
        yield row("name", "CPU")
    else:
        if not torch.cuda.is_available():
            msg = "PyTorch finds no GPU. Pass --cpu to try small sizes on the CPU."
            raise ValueError(msg)
        found = torch.cuda.get_device_properties(0)
        yield row("name", found.name)
        yield row("memory", found.total_memory / 2**30, "GiB")
        yield row("bfloat16", "yes" if torch.cuda.is_bf16_supported() else "no")
    yield row("PyTorch", torch.__version__)
    yield row("ptycho_fast, instructions", _core.simd_name())
    yield row("cores", float(_core.count_threads(None)))


# --- patches and patterns -------------------------------------------------------------------------


def patches(device: str, until: float) -> Iterator[Row]:
    """Cut patches on the device, and add them, beside a copy of as many bytes."""
    import torch  # noqa: PLC0415

    from ptycho_fast.patches.cpu import add_patches as add_on_cpu  # noqa: PLC0415
    from ptycho_fast.patches.torch import add_patches, extract_patches  # noqa: PLC0415

    N, B, side = (32, 64, 256) if device == "cpu" else (64, 8192, 2048)
    rng = np.random.default_rng(0)
    image = (rng.normal(size=(side, side)) + 1j * rng.normal(size=(side, side))).astype("c8")
    positions = rng.uniform(-2, side + 2, (B, 2, C))
    there = torch.from_numpy(image).to(device)
    cut = functools.partial(extract_patches, there, positions, N, method="torch")
    made = cut()
    few = min(B, 64)
    kernel = pf.extract_patches(image, positions[:few], N)
    oracle = reference.extract_patches(image, positions[:8], N)
    allowed = tolerance(image)
    for name, expected in (("NumPy's definition", oracle), ("the Rust kernel", kernel)):
        error = float(np.abs(made[: len(expected)].cpu().numpy() - expected).max())
        check(f"Patches differ from {name}", error, allowed)
        yield row(f"largest difference from {name}", error, "", f"allowed {allowed:.2g}")
    seconds = timed(cut, device)
    target = torch.empty_like(made)
    copy = timed(functools.partial(target.copy_, made), device)
    size = made.numel() * made.element_size()
    told = f"a copy on the device, {size / copy / 1e9:.4g} GB/s"
    name = f"{B * C} patches of {N} x {N}, written"
    yield row(name, size / seconds / 1e9, "GB/s", told, ratio=copy / seconds)
    out = np.zeros((B, N, N, C), np.complex64)
    on_cpu = functools.partial(pf.extract_patches, image, positions, N, out=out)
    kernel_s = timed(on_cpu, "cpu", 3, 1)
    told = f"Rust, all cores, {1e6 * kernel_s / B / C:.3g} us"
    yield row("a patch", 1e6 * seconds / B / C, "us", told, ratio=seconds / kernel_s)

    del target, out, on_cpu
    seconds = timed(lambda: add_patches(made, positions, image.shape), device, 5)
    yield row("adding a patch (the gradient)", 1e6 * seconds / B / C, "us")
    laid = add_patches(made[:few].contiguous(), positions[:few], image.shape).cpu().numpy()
    wanted = add_on_cpu(kernel, positions[:few], np.zeros_like(image))
    error = float(np.abs(laid - wanted).max())
    check("Added patches differ from those of the Rust kernel", error, few * allowed)
    yield row("largest difference of added patches from the Rust kernel", error)


def feed(device: str, until: float) -> Iterator[Row]:
    """Gather batches of patterns that stay on the device."""
    import torch  # noqa: PLC0415

    N, n, sizes = (32, 2048, (32, 512)) if device == "cpu" else (64, 2**17, (32, 1024, 8192))
    for dtype in ("uint16", "float32"):
        scan = scan_of_random(n if dtype == "float32" else min(n, 4096), N, dtype)
        data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, seed=0))
        batch = next(iter(data.to_torch(256, shuffle=True, resident=True, device=device)))
        rows = batch["nn_indices"].cpu().numpy()
        expected = scan.diffraction[rows]
        if not np.array_equal(batch["diffraction"].cpu().numpy(), expected):
            msg = f"A batch of {dtype} patterns differs from the patterns of the scan."
            raise ValueError(msg)
        yield row(f"{dtype}: the batch is that of the scan", "yes")
    for size in sizes:
        each, here = rate(data.to_torch(size, shuffle=True, resident=True, device=device), device)
        target = torch.empty_like(here)
        copy = timed(functools.partial(target.copy_, here), device)
        del target
        limit = here.numel() * here.element_size() / copy
        goal = ""
        if size == sizes[-1]:
            goal = aim(">= 2.5 TB/s read and written", 2 * each >= 2.5e12, device)
        told = f"a copy on the device, {2 * limit / 1e12:.4g} TB/s"
        name = f"batches of {size} groups of {C}, read and written"
        yield row(name, 2 * each / 1e12, "TB/s", told, ratio=each / limit, goal=goal)
    middle = sizes[1]
    each, _ = rate(data.to_torch(middle, shuffle=True, resident=True, device=device), device)
    sent, _ = rate(data.to_torch(middle, shuffle=True), device)
    told = f"sent from the host, {sent / 1e9:.4g} GB/s"
    yield row(f"batches of {middle} groups, delivered", each / 1e9, "GB/s", told, ratio=each / sent)


def rate(batches: Any, device: str) -> tuple[float, Any]:
    """Return the bytes of patterns a second of whole epochs on the device, and a batch."""
    seen: dict[str, Any] = {}

    def epoch() -> None:
        count = 0
        for batch in batches:
            there = batch["diffraction"].to(device, non_blocking=True)
            count += there.numel() * there.element_size()
            seen["batch"] = seen.get("batch", there)
        seen["bytes"] = count

    seconds = timed(epoch, device, 3, 1)
    return seen["bytes"] / seconds, seen["batch"]


# --- images ---------------------------------------------------------------------------------------


def training(device: str, until: float) -> Iterator[Row]:
    """Train by `PtychoModel.train`, in bfloat16 (what it uses on a GPU) and in float32."""
    import torch  # noqa: PLC0415
    from device_trainer import Clock, clocked  # noqa: PLC0415

    from ptycho_fast.metrics import score  # noqa: PLC0415
    from ptycho_fast.models import PtychoModel  # noqa: PLC0415

    cases: tuple[tuple[str, int | None], ...]
    if device == "cpu":
        N, n, epochs, cases = 16, 144, 2, (("bf16-mixed", None), ("32-true", None))
        options: dict[str, Any] = {"width": 8}
    else:
        N, n, epochs, options = 64, 512, 4, {}
        cases = (("bf16-mixed", None), ("32-true", None), ("bf16-mixed", 64), ("32-true", 64))
        yield row("float32 convolutions in TF32", str(torch.backends.cudnn.allow_tf32))
    scan = pf.simulate_scan(n_positions=n, N=N, seed=0)
    assert scan.object is not None
    losses: dict[Any, float] = {}
    for precision, batch_size in cases:
        clock = Clock(device)
        model = PtychoModel(N=N, **options)
        rows = model.train(
            scan,
            batch_size=batch_size,
            max_epochs=epochs,
            picture_every=0,
            device=device.replace("cuda", "gpu"),
            trainer_cls=functools.partial(clocked, clock, precision),
        )
        # The first epoch is the warm-up.
        seconds, waited = np.median(np.array(clock.epochs[1:]), axis=0)
        name = {"bf16-mixed": "bfloat16", "32-true": "float32"}[precision]
        name += f", batches of {batch_size or 2} groups"
        each = 1e3 * seconds / (n * C)
        share = 100 * waited / seconds
        yield row(f"{name}: a pattern", each, "ms")
        goal = aim("<= 5 %", share <= 5, device)
        yield row(f"{name}: waiting for data", share, "% of the time", goal=goal)
        made: Any = model.infer(scan, device=device.replace("cuda", "gpu"))
        image = place(made.object, made.origin, scan.object.shape)
        found = score(image, scan.object, scan.positions, N)
        loss = losses[precision, batch_size] = rows[-1]["loss"]
        told, ratio, goal = "", None, ""
        if precision == "32-true":
            other = losses["bf16-mixed", batch_size]
            told, ratio = f"bfloat16, {other:.5g}", loss / other
            goal = aim("within 5 %", abs(ratio - 1) <= 0.05, device)
        yield row(f"{name}: loss after {epochs} epochs", loss, "", told, ratio=ratio, goal=goal)
        told = f"correlation of the amplitude {found.amplitude_correlation:.3f}"
        yield row(f"{name}: error of the phase", found.phase_rmse, "rad", told)


def reconstruction(device: str, until: float) -> Iterator[Row]:
    """Reconstruct on the device, on the CPU, and by pty-chi."""
    from ptycho_fast.metrics import score  # noqa: PLC0415
    from ptycho_fast.reconstruction import run  # noqa: PLC0415
    from ptycho_fast.reconstruction.torch import TorchModel  # noqa: PLC0415

    def on_device(scan: pf.Scan) -> Any:
        if device == "cuda":
            return pf.reconstruct(scan, device="gpu")
        # What a GPU computes, by the CPU.
        with mock.patch.object(run, "model_on", lambda _, *scan, **__: TorchModel(*scan)):
            return pf.reconstruct(scan)

    N, n = (32, 100) if device == "cpu" else (64, 1000)
    on_device(pf.simulate_scan(n_positions=50, N=N, seed=1))  # the warm-up
    scan = pf.simulate_scan(n_positions=n, N=N, seed=0)
    assert scan.object is not None
    times, images = [], []
    for reconstructed in (on_device, pf.reconstruct):
        start = time.perf_counter()
        images.append(reconstructed(scan))
        wait(device)
        times.append(time.perf_counter() - start)
    there, here = (image.deviance for image in images)
    name = "by PyTorch" if device == "cpu" else "on the GPU"
    told = f"on all cores, {times[1]:.3g} s"
    yield row(f"{n} patterns of {N} x {N}, {name}", times[0], "s", told, ratio=times[0] / times[1])
    for image, where in zip(images, (name, "on all cores"), strict=True):
        whole = place(image.object, image.origin, scan.object.shape)
        error = score(whole, scan.object, scan.positions, N).phase_rmse
        yield row(f"error of the phase, {where}", error, "rad")
    apart = abs(there / here - 1)
    goal = aim("within 0.01 %", apart <= 1e-4, device)
    told = f"on all cores, {here:.6g}"
    yield row(f"deviance, {name}", there, "", told, ratio=there / here, goal=goal)
    # Iterations end early, so rounding errors show; the same image must have the same likelihood.
    check("The deviance differs from that of the CPU, as a share,", apart, 0.05)
    yield from one_image(scan, images[1], device)
    yield from beside_pty_chi(scan, times[0])


def one_image(scan: pf.Scan, image: Any, device: str) -> Iterator[Row]:
    """Compare the likelihood of an image, and its gradient, with those of the CPU."""
    from ptycho_fast.reconstruction.cpu import CpuModel  # noqa: PLC0415
    from ptycho_fast.reconstruction.torch import TorchModel  # noqa: PLC0415

    light = counts_of(scan).astype(np.float32)
    same = (image.canvas.local(scan.positions), image.canvas.shape, scan.N)
    loss, slope = [], []
    for model in (CpuModel(*same), TorchModel(*same, device=device)):
        known: Any = model
        arrays = [known.asarray(array) for array in (image.object, image.probe)]
        found = known.gradient(light, None, *arrays)
        loss.append(found.loss)
        slope.append(known.to_numpy(found.object))
    apart = abs(loss[1] / loss[0] - 1)
    yield row(
        "loss of that image, by PyTorch",
        loss[1],
        "",
        f"by Rust, {loss[0]:.8g}",
        ratio=loss[1] / loss[0],
    )
    check("The loss of one image differs from that of the CPU, as a share,", apart, 1e-4)
    apart = float(np.abs(slope[1] - slope[0]).max() / np.abs(slope[0]).max())
    yield row("largest difference of its gradient, of the largest", apart, "", "allowed 0.001")
    check("The gradient of one image differs from that of the CPU, as a share,", apart, 1e-3)


def counts_of(scan: pf.Scan) -> NDArray[np.int64]:
    """Return the counts of a simulated scan."""
    counts: NDArray[np.int64] = np.rint(np.square(scan.diffraction, dtype=np.float64)).astype("i8")
    return counts


def beside_pty_chi(scan: pf.Scan, seconds: float) -> Iterator[Row]:
    """Let pty-chi reconstruct the same scan, on a GPU if there is one, where it is installed."""
    import reconstruct  # noqa: PLC0415

    from ptycho_fast.metrics import score  # noqa: PLC0415

    assert scan.object is not None
    if not reconstruct.has(sys.executable, "ptychi"):
        yield row("pty-chi", "is not installed")
        return
    case = reconstruct.Case("simulated", chi=reconstruct.POISSON)
    scale = float(scan.metadata["photon_scale"]) ** 0.5
    truth = reconstruct.Truth(case, scan, counts_of(scan), scan.positions, scale)
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job.npz"
        reconstruct.write_job(truth, "all", 0, job)
        numbers = reconstruct.run(job, "pty-chi, best", dict(case.chi), sys.executable, None)
        with np.load(job) as told_job, np.load(numbers["found"]) as held:
            x, y = told_job["origin"]
            whole = place(held["object"], (int(x), int(y)), scan.object.shape)
    error = score(whole, scan.object, scan.positions, scan.N).phase_rmse
    told = f"pty-chi, 100 epochs, {numbers['seconds']:.3g} s"
    yield row("the same by PyTorch", seconds, "s", told, ratio=seconds / numbers["seconds"])
    yield row("error of the phase, pty-chi", error, "rad")
