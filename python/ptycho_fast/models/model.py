"""`PtychoModel`: train on a scan, image a scan, save and load."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ptycho_fast.canvas import canvas
from ptycho_fast.checks import as_count, check_neighbors
from ptycho_fast.devices import DEVICES, choose_device
from ptycho_fast.models.architectures.registry import UNROLLED
from ptycho_fast.models.building import (
    PRETRAINED,
    build_network,
    pretrained_network,
    sketch_network,
)
from ptycho_fast.models.checkpoint import find_checkpoint
from ptycho_fast.models.config import ModelConfig
from ptycho_fast.models.imaging import choose_rows, image_scan
from ptycho_fast.models.light import stack_probes
from ptycho_fast.models.probes import choose_probe, light_of, probes_of
from ptycho_fast.models.restoring import continue_run, restore_model
from ptycho_fast.models.scans import as_scan, check_patterns, mean_light, probe_for, scans_of
from ptycho_fast.models.storage import save_model
from ptycho_fast.models.training.options import TrainingOptions
from ptycho_fast.models.training.pictures import PICTURED, Pictures
from ptycho_fast.models.training.setup import plan_training, record_run

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ptycho_fast.models.light import SeenLight
    from ptycho_fast.models.network import ScanNetwork
    from ptycho_fast.models.reconstruction import Reconstruction
    from ptycho_fast.models.scans import NamedScan, ScanOrPath


class PtychoModel:
    """A neural network that learns from diffraction patterns, and images a scan in one pass.

    It is trained without known objects: the loss compares the diffraction patterns of its patches
    with the measured ones.

    Parameters
    ----------
    architecture : str
        "cnn", "fno", "hybrid", "hybrid_resnet", or one that you have registered
        (`register_architecture`).
    N : int
        Pixels per side of a diffraction pattern; even, at least 4.
    gridsize : int
        The network sees groups of C = gridsize² patterns. If C > 1, their overlap constrains the
        patches.
    seed : int
        Seed of the initial weights and of the groups. With the same seed, training can be repeated
        on the same machine.
    stages : int
        How many times the architecture is applied in sequence. Each further stage corrects what
        the patches of the stages before leave unexplained.
    overlap : int
        For gridsize 1: the network sees single patterns, but is trained on groups of this many,
        whose patches are merged on a common canvas. 1 trains each pattern on its own.
    loss : {"poisson", "amplitude"}
        See `ptycho_fast.models.physics.diffraction_loss`.
    learning_rate : float
        Learning rate of Adam after the warm-up.
    schedule : {"cosine", "plateau"}
        How the learning rate falls: along a cosine to 0 at the last step, or to half after every 5
        epochs without a lower loss.
    trainable_probe : bool
        Learn the probe together with the network. Refining the probe before the first epoch
        (``refine_probe`` of `train`) is more stable.
    least_exposure : float
        If it is less than 1, patterns are shown to the network with the noise of a shorter
        exposure, drawn between this fraction and 1 of the original. The loss still compares with
        the original patterns. With 1e-3 you get a network for patterns with a thousandth of the
        counts that it was trained on.
    **options
        Options of the architecture, for example ``width=32``.

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
        architecture: str = ModelConfig.architecture,
        N: int = ModelConfig.N,
        gridsize: int = ModelConfig.gridsize,
        *,
        seed: int = ModelConfig.seed,
        stages: int = ModelConfig.stages,
        overlap: int = ModelConfig.overlap,
        loss: str = ModelConfig.loss,
        learning_rate: float = ModelConfig.learning_rate,
        schedule: str = ModelConfig.schedule,
        trainable_probe: bool = ModelConfig.trainable_probe,
        least_exposure: float = ModelConfig.least_exposure,
        **options: Any,
    ) -> None:
        self.model_config = ModelConfig(
            architecture=architecture,
            N=N,
            gridsize=gridsize,
            seed=seed,
            stages=stages,
            overlap=overlap,
            loss=loss,
            schedule=schedule,
            learning_rate=learning_rate,
            trainable_probe=trainable_probe,
            least_exposure=least_exposure,
            options=options,
        )
        self.network: ScanNetwork | None = None
        self.seen_light: SeenLight | None = None
        # Raises an error now if the architecture does not take the options.
        sketch_network(self.model_config)

    def __repr__(self) -> str:
        config = self.model_config
        state = "untrained" if self.network is None else f"{self.n_parameters} parameters"
        return (
            f"PtychoModel({config.architecture!r}, N={config.N}, gridsize={config.gridsize}, "
            f"{state})"
        )

    @property
    def architecture(self) -> str:
        """Name of the architecture."""
        return self.model_config.architecture

    @property
    def probe(self) -> NDArray[np.complex64] | None:
        """The probe, (modes, N, N), scaled to the counts of training. None before training.

        After training on several scans those of all, (scans, modes, N, N).
        """
        if self.network is None or self.seen_light is None:
            return None
        probe: NDArray[np.complex64] = self.network.scaled(self.network.bare).detach().cpu().numpy()
        exposure = self.network.probes.exposure
        return probe[0] if exposure is None else probe * exposure[:, None, None, None]

    @property
    def n_parameters(self) -> int:
        """Number of learned parameters, without the probe."""
        network = self.network or sketch_network(self.model_config)
        return sum(p.numel() for p in network.stages.parameters())

    def train(
        self,
        scan: ScanOrPath | Sequence[ScanOrPath],
        neighbor_count: int = TrainingOptions.neighbor_count,
        n_groups: int | None = None,
        batch_size: int | None = None,
        max_epochs: int = TrainingOptions.max_epochs,
        *,
        validation: float | ScanOrPath | Sequence[ScanOrPath] | None = None,
        output: str | os.PathLike[str] | None = None,
        source: str | os.PathLike[str] | Sequence[str | os.PathLike[str] | None] | None = None,
        resume: bool = False,
        refine_probe: int = TrainingOptions.refine_probe,
        picture_every: int = TrainingOptions.picture_every,
        device: str = DEVICES[0],
        devices: int = TrainingOptions.devices,
        trainer_cls: Any = None,
    ) -> list[dict[str, Any]]:
        """Train on the diffraction patterns of a scan, or of several.

        Each of several scans keeps its own probe, mask and exposure. Batches mix scans, groups do
        not. If a scan contains the object, it is used to score the pictures, never to train. A
        model that was trained before continues from its weights.

        Parameters
        ----------
        scan : Scan, path-like, or sequence of them
            A scan with a probe, or several with the same N. Those read with
            ``read_scan(path, load=False)`` leave their patterns in the files.
        neighbor_count : int
            Number of neighbours considered per centre, at least gridsize².
        n_groups : int, optional
            Number of groups per epoch and scan; they are drawn anew for each epoch. By default one
            around every position.
        batch_size : int, optional
            Number of groups per step and device. By default as many as have 8 patterns together,
            or all groups if they are fewer.
        max_epochs : int
            Number of epochs, including those done before the run was resumed.
        validation : float, Scan, path-like, or sequence of scans, optional
            What is held out of training and only scored: a fraction of each scan, in a block at
            its end, or other scans.
        output : path-like, optional
            Folder for the model, the checkpoint, ``history.csv``, the pictures and ``run.json``,
            which records the scans (file name, number of positions, checksums) and the options.
            They are written after each epoch. By default nothing is written.
        source : path-like or sequence, optional
            The file of each scan, for the record, if it is not a path; those of `validation` last.
        resume : bool
            Continue from the checkpoint in `output`, with the same losses as if the run had not
            been stopped. Scans and their order, options and model must be those of the run, except
            for `max_epochs`, the pictures and the device.
        refine_probe : int
            Number of iterations of `ptycho_fast.reconstruction.reconstruct` that refine the probe
            before the first epoch. For measured data the probe limits quality; 20 iterations are
            usually enough.
        picture_every : int
            Number of epochs from one picture of the reconstructed phase, of the first scan, to the
            next; 0 for none. The history then has the correlation of the image.
        device : {"auto", "cpu", "gpu"}
            By default a GPU, if there is one.
        devices : int
            Number of devices that train together (Lightning's DDP). Leave it out where ``torchrun``
            started the processes, on one machine or on several: each then uses one device.
        trainer_cls : type, optional
            Used instead of ``lightning.Trainer``.

        Returns
        -------
        list of dict
            The history, one row per epoch (with several devices, the first one returns it):
            ``epoch``, ``loss``, ``validation_loss``, ``image_correlation`` (of the modulus with
            that of ``scan.object``; if the scan has no object, of the image with the previous
            picture), ``variation`` of the patches, ``learning_rate``, ``seconds``.

        Raises
        ------
        ValueError
            If there is no scan; if one has no probe or another N; if two are the same; if patterns
            are not finite; if there are fewer groups than a batch; if the image would not fit in
            memory; if there is no GPU; or if `output` contains another run, more epochs than asked
            for, or damaged files.
        OSError
            If a file of the run is not a regular file, or cannot be read.
        FloatingPointError
            If the loss is not finite. The message names the batch; files written before are kept.
        MemoryError
            If the GPU has too little memory.

        Warns
        -----
        UserWarning
            If all patches become the same image, or if a resumed run has no record or was trained
            on another kind of device.
        """
        # Lightning takes a second to import, which imaging need not wait for.
        from ptycho_fast.models.training.loop import train_network  # noqa: PLC0415

        config = self.model_config
        options = TrainingOptions(
            neighbor_count=neighbor_count,
            n_groups=n_groups,
            batch_size=batch_size,
            max_epochs=max_epochs,
            validation=validation if isinstance(validation, float | int) else None,
            output=None if output is None else Path(output),
            resume=resume,
            refine_probe=refine_probe,
            picture_every=picture_every,
            accelerator=choose_device(device),
            devices=devices,
            trainer_cls=trainer_cls,
        )
        scans, held_out = scans_of(scan, validation, config.N, source)
        plan = plan_training(scans, held_out, config, options)
        folder = options.output
        checkpoint = find_checkpoint(folder, resume=resume)
        patterns = [one.mean_light() for one in (*scans, *held_out)]
        drawn = config.architecture == UNROLLED or config.least_exposure < 1
        check_patterns([*scans, *held_out], patterns, counts_are_drawn=drawn)
        record = None if folder is None else record_run(scans, held_out, plan, options)
        rows: list[dict[str, Any]] = []
        if checkpoint is not None and record is not None:
            self.network, self.seen_light, rows = continue_run(
                checkpoint, config, record, options.max_epochs
            )
        else:
            self._begin(scans, patterns[: len(scans)], options.refine_probe)
        assert self.network is not None
        self.network.set_mask(plan.mask)
        others = probes_of(held_out, patterns[len(scans) :], options.refine_probe)
        first = scans[0].scan
        few = None if len(first) <= PICTURED else PICTURED

        def save() -> None:
            if folder is not None and record is not None:
                record.write(folder)
                self.save(folder)

        return train_network(
            self.network,
            config,
            plan,
            options,
            held_out=stack_probes(others, self.network.probes.bare[0]) if others else None,
            checkpoint=checkpoint,
            rows=rows,
            save=save,
            picture=Pictures(
                lambda: self.infer(first, n_groups=few, device=options.accelerator), folder
            ).draw,
        )

    def _begin(
        self, scans: list[NamedScan], patterns: list[NDArray[np.float64]], iterations: int
    ) -> None:
        """Build the network, or take it as it is, and give it the probes of the scans."""
        before = None
        if self.network is not None and self.seen_light is not None:
            before = self.network.probes, self.seen_light
        probes = probes_of(scans, patterns, iterations, before)
        if self.network is None:
            self.network = build_network(self.model_config, probes[0])
        self.network.set_probes(stack_probes(probes))
        self.seen_light = light_of([one.scan for one in scans], patterns)

    def infer(
        self,
        scan: ScanOrPath,
        stitching: bool = True,
        refine: int = 0,
        *,
        n_groups: int | None = None,
        neighbor_count: int | None = None,
        device: str = DEVICES[0],
    ) -> Reconstruction:
        """Image a scan with the trained network.

        The scan's own probe is used; if training refined or learned that probe, the result.

        Parameters
        ----------
        scan : Scan or path-like
            A scan of the same N. Probe, exposure and bad pixels may differ from those of training.
        stitching : bool
            False to return the patches of the network instead of one image.
        refine : int
            Number of iterations of `ptycho_fast.reconstruction.reconstruct` that start from the
            network's image, with the same probe. Afterwards the object has the mean
            intensity 1 and the mean phase 0, weighted by the light.
        n_groups : int, optional
            Number of groups, around positions drawn at random. By default one around every
            position.
        neighbor_count : int, optional
            Number of neighbours considered per centre, at least gridsize². By default the nearest
            gridsize². With gridsize 1, a group is its centre.
        device : {"auto", "cpu", "gpu"}
            By default a GPU, if there is one.

        Returns
        -------
        Reconstruction

        Raises
        ------
        ValueError
            If the model was not trained; if N differs; if patterns are not finite; if there are
            fewer neighbours than a group has patterns; if there is no GPU; or if the image would
            not fit in memory.
        MemoryError
            If the GPU has too little memory.

        Warns
        -----
        UserWarning
            If the scan has no probe, or ``scan.object`` is smaller than the area that it covers.
        """
        if self.network is None:
            msg = "This model was not trained. Call train first, or load a trained model."
            raise ValueError(msg)
        config = self.model_config
        scan = as_scan(scan, config.N)
        where = torch.device("cuda" if choose_device(device) == "gpu" else "cpu")
        if refine and not stitching:
            msg = f"refine={refine} needs the stitched image. Leave out stitching=False."
            raise ValueError(msg)
        refine = as_count("refine", refine, least=0)
        if neighbor_count is None:
            neighbor_count = config.channels
        check_neighbors(neighbor_count, config.channels)
        rows = choose_rows(scan, config, n_groups=n_groups, neighbor_count=neighbor_count)
        area = canvas(scan.positions, scan.N)
        if self.seen_light is None:  # it knows no scan, only what objects look like
            bare, exposure = probe_for(scan, mean_light(scan), 0), 1.0
        else:
            bare, exposure = choose_probe(scan, self.network.probes, self.seen_light)
        return image_scan(
            self.network,
            scan,
            rows,
            area=area,
            bare=bare,
            exposure=exposure,
            stitching=stitching,
            refine=refine,
            device=where,
        )

    @classmethod
    def pretrained(cls, N: int = ModelConfig.N, *, seed: int = ModelConfig.seed) -> PtychoModel:
        """Return a model that images scans of objects and probes that it never saw.

        A few iterations under the smooth prior make an image, and the network of the learned prior
        (``pf.reconstruct(scan, prior="learned")``) improves it. `train` continues from its weights.

        Parameters
        ----------
        N : int
            Pixels per side of a diffraction pattern; even, at least 4. The weights are the same for
            every N, because the network is fully convolutional in pixels of the object.
        seed : int
            Seed of training.

        Returns
        -------
        PtychoModel
            It images all patterns of a scan together. The scan must have a probe.

        Examples
        --------
        >>> import ptycho_fast as pf
        >>> from ptycho_fast.models import PtychoModel
        >>> scan = pf.simulate_scan(n_positions=100, N=32, seed=0)
        >>> made = PtychoModel.pretrained(N=32).infer(scan)
        >>> made.metrics["phase_rmse"] < 0.05
        True
        """
        model = cls(N=N, seed=seed, **PRETRAINED)
        model.network = pretrained_network(model.model_config)
        return model

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model: ``config.json``, ``probe.npy`` and ``model.safetensors``.

        Parameters
        ----------
        folder : path-like
            Created if it does not exist. Each file appears whole or not at all.

        Raises
        ------
        ValueError
            If the model was not trained.
        """
        if self.network is None or self.seen_light is None:
            msg = "There is nothing to save, because this model was not trained. Call train first."
            raise ValueError(msg)
        save_model(Path(folder), self.model_config, self.network, self.seen_light)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> PtychoModel:
        """Read a model that `save` or `train` has written. No code in the files is executed.

        Parameters
        ----------
        folder : path-like

        Returns
        -------
        PtychoModel

        Raises
        ------
        ValueError
            If a file is missing, damaged, or of another model, or contains numbers that are not
            finite.
        OSError
            If a file is not a regular file, or cannot be read.
        """
        config, network, seen = restore_model(Path(folder))
        arguments = dataclasses.asdict(config)
        options = arguments.pop("options")
        model = cls(**arguments, **options)
        model.network, model.seen_light = network, seen
        return model
