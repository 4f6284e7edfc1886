"""``ptycho-fast train``: train a network on the diffraction patterns of one or several scans."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho_fast.cli.command import add_command
from ptycho_fast.cli.group_count import add_group_count, group_count
from ptycho_fast.cli.outputs import check_output_folder
from ptycho_fast.cli.progress import duration, step
from ptycho_fast.cli.reading import FORMATS, add_reading
from ptycho_fast.cli.scan_files import find_files, read_files
from ptycho_fast.devices import DEVICES
from ptycho_fast.models import require_pytorch
from ptycho_fast.models.architectures import list_architectures
from ptycho_fast.models.config import LOSSES, SCHEDULES, ModelConfig
from ptycho_fast.models.training.options import PATTERNS_A_STEP, TrainingOptions

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from ptycho_fast.cli.command import Commands


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "train",
        run,
        summary="Train a network on the diffraction patterns of one or several scans.",
        example="SCAN.npz -o RUN/ --architecture hybrid_resnet --gridsize 2 --n-images 2576 "
        "--epochs 5",
        usage="FILE [FILE ...] -o RUN/ [options]",
        renamed={"neighbor_count": "--neighbors", "max_epochs": "--epochs"},
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE",
        help=f"the scans, each with its probe: {FORMATS}; 'scans/*.h5' stands for all such files",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="RUN/",
        help="folder for the model, its checkpoint, history.csv and pictures",
    )  # fmt: skip
    _add_model(parser)
    _add_training(parser)
    add_reading(parser)


def _add_model(command: argparse.ArgumentParser) -> None:
    """Add the options of the model."""
    command.add_argument(
        "--architecture", default=ModelConfig.architecture, metavar="NAME",
        help=f"the network: {', '.join(list_architectures())} (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--gridsize", type=int, default=ModelConfig.gridsize, metavar="G",
        help="the network sees groups of G² patterns (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--loss", choices=LOSSES, default=ModelConfig.loss,
        help="what is minimised: the Poisson likelihood of the counts or the difference of "
        "amplitudes (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--schedule", choices=SCHEDULES, default=ModelConfig.schedule,
        help="how the learning rate falls (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--learning-rate",
        type=float,
        default=ModelConfig.learning_rate,
        metavar="R",
        help="learning rate of Adam after its warm-up (default: %(default)g)",
    )
    command.add_argument(
        "--least-exposure", type=float, default=ModelConfig.least_exposure, metavar="SHARE",
        help="show the network patterns as if exposed more briefly, down to this fraction of their "
        "counts; 1e-3 trains for scans of a thousandth of the photons (default: %(default)g)",
    )  # fmt: skip
    command.add_argument(
        "--trainable-probe",
        action="store_true",
        help="keep improving the probe while the network trains",
    )
    command.add_argument(
        "--seed", type=int, default=ModelConfig.seed, metavar="S",
        help="seed of the initial weights and of the groups (default: %(default)s)",
    )  # fmt: skip


def _add_training(command: argparse.ArgumentParser) -> None:
    """Add the options of the training."""
    command.add_argument(
        "--neighbors", type=int, default=TrainingOptions.neighbor_count, metavar="K",
        help="draw groups from the K nearest neighbours of a centre (default: %(default)s)",
    )  # fmt: skip
    add_group_count(command)
    command.add_argument(
        "--epochs", type=int, default=TrainingOptions.max_epochs, metavar="E",
        help="epochs in total, including those of a run that is resumed (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--batch-size", type=int, metavar="B",
        help=f"groups per step (default: as many as make {PATTERNS_A_STEP} patterns)",
    )  # fmt: skip
    command.add_argument(
        "--validation", action="append", metavar="SHARE|FILE",
        help="what is held out for validation: a fraction of each scan, or a whole scan (may be "
        "given several times; default: nothing)",
    )  # fmt: skip
    command.add_argument(
        "--refine-probe", type=int, default=TrainingOptions.refine_probe, metavar="P",
        help="refine the probe before training, with P iterations of ptycho-fast reconstruct; for "
        "measured data 20 are usually enough (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--picture-every", type=int, default=TrainingOptions.picture_every, metavar="E",
        help="write a picture of the object every E epochs; 0 writes none (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--resume", action="store_true",
        help="continue from the checkpoint in RUN/, with the same scans and the same options",
    )  # fmt: skip
    command.add_argument(
        "--device", choices=DEVICES, default=DEVICES[0],
        help="auto is a GPU where there is one (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--devices", type=int, default=TrainingOptions.devices, metavar="D",
        help="number of devices that train together (default: %(default)s)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Carry the command out."""
    check_output_folder(arguments.output)
    require_pytorch()
    # First, because PyTorch takes seconds to import.
    files, (share, held_out) = find_files(arguments.files), _held_out(arguments.validation or [])
    every = read_files([*files, *held_out], arguments)
    scans, others = every[: len(files)], every[len(files) :]
    with step("import") as running:
        from ptycho_fast.models import PtychoModel  # noqa: PLC0415

        running.done("PyTorch")
    model = PtychoModel(
        arguments.architecture,
        scans[0].N,
        arguments.gridsize,
        seed=arguments.seed,
        loss=arguments.loss,
        learning_rate=arguments.learning_rate,
        schedule=arguments.schedule,
        trainable_probe=arguments.trainable_probe,
        least_exposure=arguments.least_exposure,
    )
    print(f"{'model':12}{arguments.architecture}, {model.n_parameters} parameters")
    history = model.train(
        scans,
        arguments.neighbors,
        group_count(arguments, arguments.gridsize),
        arguments.batch_size,
        arguments.epochs,
        validation=others or share,
        output=arguments.output,
        source=[*files, *held_out],
        resume=arguments.resume,
        refine_probe=arguments.refine_probe,
        picture_every=arguments.picture_every,
        device=arguments.device,
        devices=arguments.devices,
    )
    _print_history(history)
    print(f"{'written':12}{arguments.output}")


def _held_out(given: Sequence[str]) -> tuple[float | None, list[Path]]:
    """Return what ``--validation`` names: a fraction of each scan, or files."""
    if len(given) == 1:
        with contextlib.suppress(ValueError):
            return float(given[0]), []
    return None, find_files(given)


def _print_history(history: Sequence[Mapping[str, Any]]) -> None:
    if not history:  # the run had ended, and somebody has removed its history
        return
    seconds = sum(float(row["seconds"]) for row in history)
    epochs = "1 epoch" if len(history) == 1 else f"{len(history)} epochs"
    print(f"{'trained':12}{epochs} in {duration(seconds)}")
    print(f"{'loss':12}{float(history[0]['loss']):.4g} -> {float(history[-1]['loss']):.4g}")
