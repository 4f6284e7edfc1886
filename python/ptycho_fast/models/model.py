"""The model as it is used: train on a scan, image a scan, save and load."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.atomic import replacing
from ptycho_fast.canvas import canvas, overhang, place
from ptycho_fast.checks import as_count
from ptycho_fast.dataset import GroupedDataset, held_out_block
from ptycho_fast.grouping import group_positions
from ptycho_fast.io import read_scan
from ptycho_fast.notices import warn
from ptycho_fast.patterns import mean_pattern
from ptycho_fast.plot import plot_image
from ptycho_fast.scan import Scan

# isort: split
import torch

from ptycho_fast.models.checkpoint import count_epochs, find_checkpoint
from ptycho_fast.models.classical import refine as refine_classically
from ptycho_fast.models.network import PatchNetwork
from ptycho_fast.models.physics import LOSSES, diffract, scale_probe
from ptycho_fast.models.raw import check_neighbors
from ptycho_fast.models.record import RunRecord
from ptycho_fast.models.stitching import Stitcher
from ptycho_fast.models.storage import (
    CONFIG,
    PROBE_WEIGHTS,
    read_model,
    read_weights,
    save_model,
)

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    Source = Scan | str | os.PathLike[str]

logger = logging.getLogger("ptycho_fast")

SCHEDULES = ("cosine", "plateau")

PARTNERS_WITHIN = 1 / 4
"""Of N: from as far come the patterns that train a network of single ones together. Nearer ones say
the same, and of those farther away too little lies on the same pixels."""

MOST_PARTNERS = 64

PATTERNS_A_STEP = 8

PICTURED = 2048
"""A picture during training is of at most so many groups: it must not take longer than an epoch."""

AT_ONCE = 32
"""Groups that pass through the network at a time when a scan is imaged."""


@dataclass(frozen=True)
class ModelConfig:
    """All that makes a `PtychoModel`, but for the probe and what was learned.

    Parameters
    ----------
    architecture : str
    N, gridsize, seed, stages, overlap : int
    loss, schedule : str
    learning_rate, least_exposure : float
    trainable_probe : bool
    options : dict
        Of the architecture.
    """

    architecture: str
    N: int
    gridsize: int
    seed: int
    stages: int
    overlap: int
    loss: str
    schedule: str
    learning_rate: float
    trainable_probe: bool
    least_exposure: float
    options: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """The image of a scan.

    Parameters
    ----------
    object : ndarray, (H, W), complex64, optional
        ``object[row=y, column=x]``, as large as the windows of the scan reach
        (`ptycho_fast.canvas.canvas`); 0 where no patch lies. None if it was not stitched.
    coverage : ndarray, (H, W), float32, optional
        How much probe intensity saw each pixel; 1 is one position at its brightest.
    metrics : dict
        ``pattern_correlation``: Pearson's, of measured and modelled amplitudes. With
        ``scan.object`` also `ptycho_fast.metrics.Scores` of the image against it, where both lie.
    patches : ndarray, (k, N, N), complex64, optional
        Of ``stitching=False``.
    positions : ndarray, (k, 2), float64, optional
        Of the patches.
    origin : (int, int)
        The pixel (x, y) of ``object[0, 0]``, on the grid of the positions and of ``scan.object``:
        ``ptycho_fast.canvas.place(made.object, made.origin, scan.object.shape)`` is the image on
        the object's own grid.
    """

    object: NDArray[np.complex64] | None
    coverage: NDArray[np.float32] | None
    metrics: dict[str, Any]
    patches: NDArray[np.complex64] | None = None
    positions: NDArray[np.float64] | None = None
    origin: tuple[int, int] = (0, 0)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``object.npy``, ``coverage.npy``, ``metrics.json`` and ``image.png``.

        ``metrics.json`` says under ``origin`` where ``object[0, 0]`` lies.

        Parameters
        ----------
        folder : path-like
            Made if it is missing. Each file appears whole or not at all.

        Raises
        ------
        ValueError
            If the patches were not stitched.
        """
        if self.object is None or self.coverage is None:
            msg = "There is no image to save: it was made with stitching=False."
            raise ValueError(msg)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in (("object", self.object), ("coverage", self.coverage)):
            with replacing(folder / f"{name}.npy") as file:
                np.save(file, array, allow_pickle=False)
        with replacing(folder / "metrics.json") as file:
            text = json.dumps({**self.metrics, "origin": list(self.origin)}, indent=2)
            file.write((text + "\n").encode())
        plot_image(self.object, self.coverage, folder / "image.png", origin=self.origin)


class PtychoModel:
    """A network that learns from diffraction, and images a scan in one pass.

    Parameters
    ----------
    architecture : str
        "cnn", "fno", "hybrid", "hybrid_resnet", or one that was registered.
    N : int
        Pixels per side of a pattern, even, from 4.
    gridsize : int
        Patterns are seen in groups of C = gridsize². In groups of several, overlap constrains them.
    seed : int
        Of the first weights and of the groups: with it a run on one machine can be repeated.
    stages : int
        How often the architecture is applied, each time to what was left unexplained.
    overlap : int
        With gridsize 1: patterns that are seen one by one, but trained in groups of so many, whose
        patches are laid on one canvas. 1 trains each alone.
    loss : {"poisson", "amplitude"}
        See `ptycho_fast.models.physics.diffraction_loss`.
    learning_rate : float
        Of Adam, after a warm-up.
    schedule : {"cosine", "plateau"}
        How the rate falls.
    trainable_probe : bool
        Learn the probe too. `train` can refine it before, which is steadier.
    least_exposure : float
        Train on patterns thinned to a random share of their counts, from this to 1, while what
        they are compared with stays whole: 1e-3 makes a network for patterns a thousand times
        darker than those it was trained on.
    **options
        Of the architecture: ``width=...``.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    Examples
    --------
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.models import PtychoModel
    >>> scan = pf.simulate_scan(n_positions=64, N=16, seed=0)
    >>> model = PtychoModel(architecture="cnn", N=16, width=8)
    >>> history = model.train(scan, max_epochs=1)
    >>> made = model.infer(scan)
    >>> made.object.shape, made.origin
    ((31, 31), (0, 0))
    """

    def __init__(
        self,
        architecture: str = "cnn",
        N: int = 64,
        gridsize: int = 1,
        *,
        seed: int = 0,
        stages: int = 2,
        overlap: int = 4,
        loss: str = "poisson",
        learning_rate: float = 2e-3,
        schedule: str = "cosine",
        trainable_probe: bool = False,
        least_exposure: float = 1.0,
        **options: Any,
    ) -> None:
        N = as_count("N", N, least=4)
        if N % 2:
            msg = f"N must be even, got {N}."
            raise ValueError(msg)
        for what, value, known in (("loss", loss, LOSSES), ("schedule", schedule, SCHEDULES)):
            if value not in known:
                msg = f"{what} must be one of {known}, got {value!r}."
                raise ValueError(msg)
        if not isinstance(learning_rate, float | int) or not 0 < learning_rate < 1:
            msg = f"learning_rate must be between 0 and 1, got {learning_rate!r}."
            raise ValueError(msg)
        if not isinstance(least_exposure, float | int) or not 0 < least_exposure <= 1:
            msg = f"least_exposure must be more than 0 and at most 1, got {least_exposure!r}."
            raise ValueError(msg)
        self.model_config = ModelConfig(
            architecture=architecture,
            N=N,
            gridsize=as_count("gridsize", gridsize, most=8),
            seed=as_count("seed", seed, least=0, most=2**32 - 1),
            stages=as_count("stages", stages, most=16),
            overlap=as_count("overlap", overlap, most=64),
            loss=loss,
            schedule=schedule,
            learning_rate=float(learning_rate),
            trainable_probe=bool(trainable_probe),
            least_exposure=float(least_exposure),
            options=options,
        )
        self.network: PatchNetwork | None = None
        self.mean_energy = math.nan
        self.mean_pattern: NDArray[np.float64] | None = None
        # What is wrong with the architecture's options is said now.
        self._sketch()

    def __repr__(self) -> str:
        config = self.model_config
        state = "untrained" if self.network is None else f"{self.n_parameters} parameters"
        return (
            f"PtychoModel({config.architecture!r}, N={config.N}, gridsize={config.gridsize}, "
            f"{state})"
        )

    @property
    def architecture(self) -> str:
        """The architecture's name."""
        return self.model_config.architecture

    @property
    def probe(self) -> NDArray[np.complex64] | None:
        """The probe, (modes, N, N), in roots of the counts it was trained with."""
        if self.network is None:
            return None
        probe: NDArray[np.complex64] = self.network.probe.detach().cpu().numpy()
        return probe

    @property
    def n_parameters(self) -> int:
        """How many numbers are learned."""
        network = self.network or self._sketch()
        return sum(p.numel() for p in network.stages.parameters())

    # --- training ------------------------------------------------------------------------------

    def train(
        self,
        scan: Source,
        neighbor_count: int = 4,
        n_groups: int | None = None,
        batch_size: int | None = None,
        max_epochs: int = 15,
        *,
        validation: float | None = None,
        output: str | os.PathLike[str] | None = None,
        source: str | os.PathLike[str] | None = None,
        resume: bool = False,
        refine_probe: int = 0,
        picture_every: int = 5,
        device: str = "auto",
        devices: int = 1,
        trainer_cls: Any = None,
    ) -> list[dict[str, Any]]:
        """Learn from the patterns of a scan; the object, if it is known, only scores.

        A model that was trained goes on from where it is.

        Parameters
        ----------
        scan : Scan or path-like
            With a probe.
        neighbor_count : int
            Neighbours considered per centre, at least gridsize².
        n_groups : int, optional
            Groups of an epoch, drawn anew for each; one for every position by default.
        batch_size : int, optional
            Groups per step (and device); by default as many as hold 8 patterns, or all there are.
        max_epochs : int
            Epochs in all, also of a run that goes on.
        validation : float, optional
            Share of the scan, a block at its end, that is held out and only scored.
        output : path-like, optional
            A folder for the model, the checkpoint, ``history.csv``, pictures and ``run.json``,
            which records the scan (file name, checksums of positions, patterns, probe and mask)
            and the options; written after each epoch. Nothing is written without.
        source : path-like, optional
            The file that `scan` was read from, for the record, where `scan` is no path.
        resume : bool
            Go on from the checkpoint in `output`: the losses are those of a run that was never
            stopped. It goes on only as itself: scan, options and model must be those of the run,
            but for `max_epochs`, pictures and the device.
        refine_probe : int
            Classical passes (`ptycho_fast.models.classical.refine`) that refine the probe before
            the first epoch. On measured data it is the probe that decides; 20 do.
        picture_every : int
            Epochs from one picture of the stitched phase to the next, with its
            correlation; 0 for none.
        device : {"auto", "cpu", "gpu"}
            A GPU, where there is one, by default.
        devices : int
            How many: more than one train together (Lightning's DDP).
        trainer_cls : type, optional
            Instead of ``lightning.Trainer``.

        Returns
        -------
        list of dict
            The history, one row an epoch; of several devices the first has it. ``epoch``,
            ``loss``, ``validation_loss``, ``image_correlation`` (of the moduli with
            ``scan.object``; without one, of the image with the picture before), ``variation`` of
            the patches, ``learning_rate``, ``seconds``.

        Raises
        ------
        ValueError
            If the scan has no probe, another N, patterns that are not finite, fewer groups than a
            batch or a position so far away that no memory holds the image, if there is no GPU, or
            `output` holds another run, one of more epochs, or damaged files.
        OSError
            If a file of the run is no regular file or cannot be read.
        FloatingPointError
            If the loss is not finite: it says in which batch. What was written stays.
        MemoryError
            If a GPU's memory does not suffice.

        Warns
        -----
        UserWarning
            If all patches become the same image, or a run goes on that has no record or was
            trained on another device.
        """
        # Lightning takes a second to import, which imaging need not wait for.
        from ptycho_fast.feeds.lightning import GroupedDataModule  # noqa: PLC0415
        from ptycho_fast.models import training  # noqa: PLC0415

        config = self.model_config
        max_epochs = as_count("max_epochs", max_epochs)
        devices = as_count("devices", devices)
        refine_probe = as_count("refine_probe", refine_probe, least=0)
        picture_every = as_count("picture_every", picture_every, least=0)
        accelerator = _accelerator(device)
        if not isinstance(scan, Scan):
            source = scan if source is None else source
        scan = self._as_scan(scan)
        canvas(scan.positions, scan.N)  # what can't be imaged is said before hours of training
        channels = config.gridsize**2
        check_neighbors(neighbor_count, channels)
        members = channels if channels > 1 else config.overlap
        if channels == 1:
            neighbor_count = max(neighbor_count, members, _count_partners(scan))
        groups = group_positions(
            scan.positions,
            n_groups,
            group_size=members,
            n_neighbors=neighbor_count,
            seed=config.seed,
            include_center=members > 1,
            # What is held out is in no group that trains.
            scan_ids=None if validation is None else held_out_block(scan.positions, validation),
        )
        data, held_out = GroupedDataset(scan, groups), None
        if batch_size is None:
            batch_size = max(1, min(PATTERNS_A_STEP // members, len(groups) // devices))
        batch_size = as_count("batch_size", batch_size)
        if len(groups) < batch_size * devices:
            msg = (
                f"{len(groups)} groups of a scan of {len(scan)} positions are fewer than a batch "
                f"of {batch_size * devices}. Lower batch_size, or use fewer devices."
            )
            raise ValueError(msg)
        if validation is not None:
            data, held_out = data.split(validation)
        folder = None if output is None else Path(output)
        checkpoint = find_checkpoint(folder, resume=resume)
        pattern = _lit(scan)
        record, rows = None, []
        if folder is not None:
            record = RunRecord.of(
                scan,
                file=source,
                options={
                    "neighbor_count": neighbor_count,
                    "n_groups": len(scan) if n_groups is None else n_groups,
                    "batch_size": batch_size,
                    "validation": validation,
                    "refine_probe": refine_probe,
                    "devices": devices,
                },
                device=accelerator,
            )
        if checkpoint is not None:
            assert folder is not None
            assert record is not None
            before = type(self).load(folder)
            self._check_same(before, folder)
            record.check(folder)
            done = count_epochs(checkpoint, before._trained())
            if max_epochs < done:
                msg = (
                    f"{folder} holds a run of {done} epochs, and {max_epochs} were asked for, "
                    f"which counts all of a run. Ask for more than {done} to go on."
                )
                raise ValueError(msg)
            rows = training.read_history(folder, done)
            self.network, self.mean_energy = before.network, before.mean_energy
            self.mean_pattern = before.mean_pattern
        if self.network is None:
            energy = float(np.nansum(pattern))
            probe = scale_probe(_probe_of(scan), energy, np.isfinite(pattern))
            if refine_probe:
                probe = self._refined_probe(scan, probe, refine_probe)
            self.network = self._build(probe)
            self.mean_energy, self.mean_pattern = energy, pattern
        network = self.network
        network.set_mask(scan.mask)

        feed = GroupedDataModule(
            data,
            held_out,
            batch_size=batch_size,
            seed=config.seed,
            redraw=True,
            fields=("good",) if scan.may_have_bad_pixels else (),
        )
        previous: list[NDArray[np.complex64]] = []

        def picture(epochs: int) -> float:
            few = None if len(scan) <= PICTURED else PICTURED
            made = self.infer(scan, n_groups=few, device=accelerator)
            image = made.object
            assert image is not None
            assert made.coverage is not None
            if folder is not None:
                path = folder / f"epoch_{epochs:04d}.png"
                title = f"epoch {epochs}"
                plot_image(image, made.coverage, path, title=title, origin=made.origin)
            correlation = made.metrics.get("amplitude_correlation")
            if correlation is None:
                correlation = _correlation(image, previous[-1]) if previous else math.nan
            previous[:] = [image]
            return float(correlation)

        def keep() -> None:
            if folder is not None and record is not None:
                record.write(folder)
                self.save(folder)

        watch = training.Watch(folder, keep, picture, picture_every, rows)
        module = training.Reconstructor(
            network,
            loss=config.loss,
            learning_rate=config.learning_rate,
            schedule=config.schedule,
            trainable_probe=config.trainable_probe,
            least_exposure=config.least_exposure,
            seed=config.seed,
        )
        try:
            training.fit(
                module,
                feed,
                watch,
                max_epochs=max_epochs,
                accelerator=accelerator,
                devices=devices,
                checkpoint=checkpoint,
                trainer_cls=trainer_cls,
            )
        except torch.OutOfMemoryError as error:
            msg = (
                f"The GPU's memory does not hold a step of batch_size={batch_size} groups of "
                f"{members} patterns of {config.N} pixels. Lower batch_size, or the "
                f"architecture's width. ({error})"
            )
            raise MemoryError(msg) from error
        finally:
            network.to("cpu").eval()
        return watch.rows

    # --- imaging -------------------------------------------------------------------------------

    def infer(
        self,
        scan: Source,
        stitching: bool = True,
        refine: int = 0,
        *,
        n_groups: int | None = None,
        neighbor_count: int | None = None,
        device: str = "auto",
    ) -> Reconstruction:
        """Image a scan.

        Parameters
        ----------
        scan : Scan or path-like
            Of the same N. Its photons may be other than those of training, and so may its bad
            pixels: exposures are compared over what both have.
        stitching : bool
            False for the patches as they come from the network.
        refine : int
            Classical passes from the network's image (`ptycho_fast.models.classical.refine`).
        n_groups : int, optional
            Groups around so many positions, drawn at random; around every position by default.
        neighbor_count : int, optional
            Neighbours considered per centre, at least gridsize²; by default the nearest gridsize².
            At gridsize 1 each group is its centre.
        device : {"auto", "cpu", "gpu"}

        Returns
        -------
        Reconstruction

        Raises
        ------
        ValueError
            If the model was not trained, N differs, patterns are not finite, neighbours are fewer
            than a group, there is no GPU, or the image would not fit in memory.
        MemoryError
            If a GPU's memory does not suffice.

        Warns
        -----
        UserWarning
            If ``scan.object`` does not reach as far as the scan's windows: the image does.
        """
        network = self._trained()
        config = self.model_config
        scan = self._as_scan(scan)
        where = torch.device("cuda" if _accelerator(device) == "gpu" else "cpu")
        if refine and not stitching:
            msg = f"refine={refine} works on the stitched image. Leave stitching=False out."
            raise ValueError(msg)
        refine = as_count("refine", refine, least=0)
        channels = config.gridsize**2
        check_neighbors(channels if neighbor_count is None else neighbor_count, channels)
        groups = (
            group_positions(
                scan.positions,
                n_groups,
                gridsize=config.gridsize,
                n_neighbors=channels if channels == 1 else neighbor_count or channels,
                seed=config.seed,
                include_center=channels > 1,
                centers="sequential" if n_groups is None else "random",
            )
            if channels > 1 or n_groups is not None
            else None
        )
        rows = np.arange(len(scan))[:, np.newaxis] if groups is None else groups.indices
        area = canvas(scan.positions, scan.N)
        on_canvas = area.local(scan.positions)
        exposure = self._exposure(scan)
        before = next(network.parameters()).device
        trained = network.training
        network.to(where).eval().set_mask(scan.mask)
        probe = network.probe.detach() * exposure
        weight = network.weight.cpu().numpy()
        stitcher = Stitcher(area.shape, on_canvas, weight) if stitching else None
        kept: list[NDArray[np.complex64]] = []
        fit = _Pearson()
        try:
            with torch.inference_mode():
                for first in range(0, len(rows), AT_ONCE):
                    some = rows[first : first + AT_ONCE]
                    patterns, counted = scan.measured(some.reshape(-1))
                    shape = (*some.shape, *patterns.shape[1:])
                    amplitude = torch.from_numpy(
                        np.asarray(patterns, np.float32).reshape(shape)
                    ).to(where)
                    good = None
                    if counted is not None and scan.may_have_bad_pixels:
                        good = torch.from_numpy(np.broadcast_to(counted, patterns.shape).copy())
                        good = good.reshape(shape).to(where)
                    positions = on_canvas[some].transpose(0, 2, 1)
                    made = network(amplitude / exposure, positions, good)[-1]
                    modelled = diffract(made, probe).sqrt()
                    fit.add(amplitude, modelled, network.mask if good is None else good)
                    patches = made.flatten(0, 1).cpu().numpy()
                    if stitcher is None:
                        kept.append(patches)
                    else:
                        stitcher.add(some.reshape(-1), patches)
        except torch.OutOfMemoryError as error:
            msg = f"The GPU's memory does not suffice; pass device='cpu'. ({error})"
            raise MemoryError(msg) from error
        finally:
            network.to(before).train(trained)
        metrics: dict[str, Any] = {"pattern_correlation": fit.correlation()}
        if stitcher is None:
            patches = np.concatenate(kept)
            return Reconstruction(
                None, None, metrics, patches, scan.positions[rows.reshape(-1)].copy()
            )
        image, coverage = stitcher.image(), stitcher.coverage
        if refine:
            start = np.where(coverage > 0, image, 1).astype(np.complex64)
            refined = refine_classically(
                scan,
                start,
                probe.cpu().numpy(),
                passes=refine,
                origin=area.origin,
                device=where,
            )
            image = np.where(coverage > 0, refined.object, 0).astype(np.complex64)
        metrics.update(_scores(image, area.origin, scan))
        return Reconstruction(image, coverage, metrics, origin=area.origin)

    # --- files ---------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model: ``config.json``, ``probe.npy`` and ``model.safetensors``.

        Parameters
        ----------
        folder : path-like
            Made if it is missing. Each file appears whole or not at all.

        Raises
        ------
        ValueError
            If the model was not trained.
        """
        if self.network is None:
            msg = "There is nothing to save: this model was not trained."
            raise ValueError(msg)
        save_model(
            Path(folder), self.model_config, self.network, self.mean_energy, self.mean_pattern
        )

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> PtychoModel:
        """Read a model that was saved. No code in the files is run.

        Parameters
        ----------
        folder : path-like

        Returns
        -------
        PtychoModel

        Raises
        ------
        ValueError
            If a file is missing, damaged, or of another model, or holds numbers that are not
            finite.
        OSError
            If a file is no regular file or cannot be read.
        """
        folder = Path(folder)
        saved = read_model(folder)
        try:
            model = cls(**saved.arguments, **saved.options)
        except (ArithmeticError, TypeError, ValueError) as error:
            msg = f"{folder / CONFIG} is of no model that can be made here: {error!s:.300}"
            raise ValueError(msg) from error
        # Before anything is made of the size that a configuration names.
        weights, pattern = read_weights(folder, model._sketch().state_dict(), model.model_config.N)
        network = model._build(saved.probe)
        probe = network.probe_parts.detach()
        network.load_state_dict({**weights, PROBE_WEIGHTS: probe})
        model.network, model.mean_energy = network.eval(), saved.mean_energy
        model.mean_pattern = pattern
        return model

    # --- what they share -----------------------------------------------------------------------

    def _build(self, probe: NDArray[np.complex64]) -> PatchNetwork:
        """Make the network around a probe; PyTorch's own stream stays where it is."""
        config = self.model_config
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)
            return PatchNetwork(
                config.architecture,
                N=config.N,
                channels=config.gridsize**2,
                probe=probe,
                stages=config.stages,
                **config.options,
            )

    def _sketch(self) -> PatchNetwork:
        """Make the network for its shapes: without memory for its numbers, if it can be so."""
        dot = np.ones((1, 1, 1), np.complex64)
        try:
            with torch.device("meta"):
                return self._build(dot)
        except Exception:  # a user's network may need real numbers, and else it is said again
            return self._build(dot)

    def _trained(self) -> PatchNetwork:
        if self.network is None:
            msg = "This model was not trained. Call train first, or load a run."
            raise ValueError(msg)
        return self.network

    def _as_scan(self, source: Source) -> Scan:
        scan = source if isinstance(source, Scan) else read_scan(source)
        if scan.N != self.model_config.N:
            msg = (
                f"The scan's patterns have {scan.N} x {scan.N} pixels, the model was made for "
                f"N={self.model_config.N}. Make one with PtychoModel(N={scan.N})."
            )
            raise ValueError(msg)
        return scan

    def _exposure(self, scan: Scan) -> float:
        """Return by what the amplitudes of a scan are larger than those of the training.

        What differs between the scans is taken to be the exposure, of the pixels that both have.
        """
        its, mine = _lit(scan), self.mean_pattern
        if mine is None:  # a model of an older version says no more than the sum
            return math.sqrt(float(np.nansum(its)) / self.mean_energy)
        both = np.isfinite(its) & np.isfinite(mine)
        light = float(its[both].sum()), float(mine[both].sum())
        if min(light) <= 0:
            msg = (
                f"The scan and the one that the model was trained on have {np.count_nonzero(both)} "
                f"good pixels in common, and no light on them ({light[0]:.3g} and {light[1]:.3g} "
                "counts a pattern), so their exposures can't be compared. Is the mask right?"
            )
            raise ValueError(msg)
        return math.sqrt(light[0] / light[1])

    def _refined_probe(
        self, scan: Scan, probe: NDArray[np.complex64], passes: int
    ) -> NDArray[np.complex64]:
        area = canvas(scan.positions, scan.N)
        start = np.ones(area.shape, np.complex64)
        found = refine_classically(
            scan, start, probe, passes=passes, refine_probe=True, origin=area.origin
        )
        logger.info(
            "probe: %d classical passes, residual %.3f -> %.3f",
            passes,
            found.residuals[0],
            found.residuals[-1],
        )
        return found.probe

    def _check_same(self, other: PtychoModel, folder: Path) -> None:
        """Refuse to go on as a model of another configuration."""
        if other.model_config != self.model_config:
            mine, its = dataclasses.asdict(self.model_config), other.model_config
            differing = {
                name: (value, getattr(its, name))
                for name, value in mine.items()
                if getattr(its, name) != value
            }
            listed = "; ".join(
                f"{name} is {a!r} here, {b!r} there" for name, (a, b) in differing.items()
            )
            msg = f"{folder} holds a run of another model: {listed}. Use another folder."
            raise ValueError(msg)


class _Pearson:
    """Pearson's correlation of numbers that come in pieces."""

    def __init__(self) -> None:
        self._sums = np.zeros(6)

    def add(self, a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor | None) -> None:
        """Add numbers where a mask of their last axes is True."""
        if mask is not None:
            a, b = a[..., mask], b[..., mask]
        parts = (a.sum(), b.sum(), (a * a).sum(), (b * b).sum(), (a * b).sum())
        self._sums += [a.numel(), *(float(part) for part in parts)]

    def correlation(self) -> float:
        n, a, b, aa, bb, ab = self._sums
        spread = (aa - a * a / n) * (bb - b * b / n)
        return float((ab - a * b / n) / math.sqrt(spread)) if spread > 0 else 0.0


def _lit(scan: Scan) -> NDArray[np.float64]:
    """Return the mean pattern of a scan; every pattern is looked at."""
    pattern = mean_pattern(scan)
    if not np.nansum(pattern) > 0:
        msg = f"All {len(scan)} patterns are dark: there is nothing to learn from."
        raise ValueError(msg)
    return pattern


def _probe_of(scan: Scan) -> NDArray[np.complexfloating]:
    if scan.probe is None:
        msg = (
            "The scan has no probe, and without one patterns cannot be carried to the object. "
            "Give it one: dataclasses.replace(scan, probe=...), or a key probeGuess in the file."
        )
        raise ValueError(msg)
    return scan.probe


def _count_partners(scan: Scan) -> int:
    """Return how many positions lie within `PARTNERS_WITHIN` of another, by their density."""
    width, height = np.maximum(np.ptp(scan.positions, axis=0), 1)
    around = len(scan) / (width * height) * math.pi * (PARTNERS_WITHIN * scan.N) ** 2
    return min(int(around), MOST_PARTNERS)


def _accelerator(device: str) -> str:
    if device not in ("auto", "cpu", "gpu"):
        msg = f"device must be 'auto', 'cpu' or 'gpu', got {device!r}."
        raise ValueError(msg)
    there = torch.cuda.is_available()
    if device == "gpu" and not there:
        msg = "device='gpu' was asked for, but PyTorch finds no GPU. Pass 'cpu' or 'auto'."
        raise ValueError(msg)
    return "gpu" if there and device != "cpu" else "cpu"


def _scores(image: NDArray[np.complex64], origin: tuple[int, int], scan: Scan) -> dict[str, Any]:
    """Score an image against the scan's object, where the object lies."""
    if scan.object is None:
        return {}
    shape = (scan.object.shape[0], scan.object.shape[1])
    if beyond := overhang(scan.positions, scan.N, shape):
        warn(
            f"The scan's object of {shape[0]} x {shape[1]} pixels is too small: the windows reach "
            f"beyond it, {beyond}. The image holds all of them; it is scored where both lie."
        )
    from ptycho_fast.metrics import score  # noqa: PLC0415

    try:
        return score(place(image, origin, shape), scan.object, scan.positions, scan.N).as_dict()
    except ValueError as error:  # an image too small to be scored is an image all the same
        logger.warning("The image was not scored: %s", error)
        return {}


def _correlation(image: NDArray[np.complex64], other: NDArray[np.complex64]) -> float:
    """Return the modulus of the complex correlation of two images."""
    norms = float(np.linalg.norm(image)) * float(np.linalg.norm(other))
    return float(np.abs(np.vdot(image, other))) / norms if norms else 0.0
