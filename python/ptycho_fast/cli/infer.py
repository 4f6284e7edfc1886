"""``ptycho-fast infer``: image a scan with a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho_fast.cli.command import add_command
from ptycho_fast.cli.group_count import add_group_count, group_count
from ptycho_fast.cli.outputs import check_output_folder
from ptycho_fast.cli.progress import step
from ptycho_fast.cli.reading import FORMATS, add_reading, reading
from ptycho_fast.devices import DEVICES
from ptycho_fast.io import read_scan
from ptycho_fast.models import require_pytorch

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from ptycho_fast.cli.command import Commands


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "infer",
        run,
        summary="Image a scan with a trained network: object, coverage, scores and picture.",
        example="RUN/ SCAN.npz -o OUT/ --n-images 1024 --refine 10",
        usage="RUN/ FILE -o OUT/ [options]",
        renamed={"neighbor_count": "--neighbors"},
    )
    parser.add_argument(
        "run_folder", type=Path, metavar="RUN/", help="the folder that ptycho-fast train wrote"
    )
    parser.add_argument("file", type=Path, metavar="FILE", help=f"the scan: {FORMATS}")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT/",
        help="folder for object.npy, coverage.npy, metrics.json and image.png",
    )  # fmt: skip
    add_group_count(parser)
    parser.add_argument(
        "--neighbors", type=int, metavar="K",
        help="draw groups from the K nearest neighbours of a centre (default: the size of a group)",
    )  # fmt: skip
    parser.add_argument(
        "--refine", type=int, default=0, metavar="P",
        help="improve the network's object with P iterations of ptycho-fast reconstruct "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--device", choices=DEVICES, default=DEVICES[0],
        help="auto is a GPU where there is one (default: %(default)s)",
    )  # fmt: skip
    add_reading(parser)


def run(arguments: argparse.Namespace) -> None:
    """Carry the command out."""
    check_output_folder(arguments.output)
    require_pytorch()
    with step("read") as running:  # first, because PyTorch takes seconds to import
        scan = read_scan(arguments.file, **reading(arguments))
        running.done(f"n = {len(scan)} positions, patterns of {scan.N} x {scan.N}")
    with step("import") as running:
        from ptycho_fast.models import PtychoModel  # noqa: PLC0415

        running.done("PyTorch")
    with step("load") as running:
        model = PtychoModel.load(arguments.run_folder)
        running.done(str(model))
    with step("image") as running:
        made = model.infer(
            scan,
            refine=arguments.refine,
            n_groups=group_count(arguments, model.model_config.gridsize),
            neighbor_count=arguments.neighbors,
            device=arguments.device,
        )
        running.done("done" if made.object is None else f"{made.object.shape} pixels")
    _print_scores(made.metrics)
    with step("write") as running:
        made.save(arguments.output)
        running.done(str(arguments.output))


def _print_scores(metrics: Mapping[str, Any]) -> None:
    for name, value in metrics.items():
        if isinstance(value, float):
            print(f"{name.replace('_', ' '):23}{value:.4f}")
    twin = metrics.get("twin")
    if twin is not None:
        print(f"{'of the twin':23}phase rmse {twin['phase_rmse']:.4f}")
