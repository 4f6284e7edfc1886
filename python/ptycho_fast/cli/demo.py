"""``ptycho-fast demo``: simulate a scan, group it, make batches, reconstruct it, draw pictures."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho_fast.atomic import replacing
from ptycho_fast.cli.command import add_command
from ptycho_fast.cli.outputs import check_output, output_folder
from ptycho_fast.cli.progress import step
from ptycho_fast.dataset import GroupedDataset
from ptycho_fast.grouping import group_positions
from ptycho_fast.plot import write_png
from ptycho_fast.reconstruction import reconstruct
from ptycho_fast.reconstruction.pictures import phase_picture
from ptycho_fast.simulate import simulate_scan

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from ptycho_fast.cli.command import Commands

BATCHES, BATCH_SIZE = 8, 32


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "demo",
        run,
        summary="Simulate a scan, group it, make batches and an image, in 10 to 20 seconds.",
        example="-o .",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(), metavar="DIR",
        help="folder for demo.png and demo_phase.png (default: the current one)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Carry the command out."""
    picture, phase = arguments.output / "demo.png", arguments.output / "demo_phase.png"
    with output_folder(arguments.output):
        check_output(picture)
        check_output(phase)
        _demonstrate(picture, phase)


def _demonstrate(picture: Path, phase: Path) -> None:
    missing = []
    with step("simulate") as running:
        scan = simulate_scan(1000, 64, trajectory="spiral", seed=0, progress=running.advance)
        running.done(f"{len(scan)} patterns of {scan.N} x {scan.N}, Fermat spiral, photon noise")
    with step("group") as running:
        groups = group_positions(scan.positions, gridsize=2, n_neighbors=7, seed=42)
        running.done(
            f"{len(groups)} groups of {groups.group_size} among {groups.n_neighbors} neighbours"
        )
    with step("TensorFlow") as running:
        tensorflow, problem = _import_tensorflow()
        running.done("not available" if tensorflow is None else tensorflow.__version__)
    if problem:
        missing.append(problem)
    with step("batches") as running:
        data = GroupedDataset(scan, groups)
        with contextlib.ExitStack() as stack:
            if tensorflow is None:
                feed, batches = "NumPy", data.batches(BATCH_SIZE, fields=("Y",))
                stack.enter_context(batches)
            else:
                feed, batches = "tf.data", data.to_tensorflow(BATCH_SIZE, fields=("Y",))
            for batch in itertools.islice(batches, BATCHES):
                arrays = {name: (tuple(a.shape), a.dtype) for name, a in batch.items()}
                running.advance(1 / BATCHES)
        running.done(f"{BATCHES} of {BATCH_SIZE} groups through {feed}")
    for name, (shape, dtype) in arrays.items():
        print(f"{'':12}{name} {shape} {dtype.name}")
    with step("reconstruct") as running:
        made = reconstruct(scan)
        found = "" if made.resolution is None else f", resolution {made.resolution.text()}"
        running.done(f"deviance {made.deviance:.3f} (1 is noise alone){found}")
    with step("pictures") as running:
        with replacing(phase) as file:
            file.write(phase_picture(made.object, made.coverage).png)
        try:
            write_png(groups.plot(scan), picture)
            running.done(f"{picture}, {phase.name}")
        except ImportError as error:
            missing.append(str(error))
            running.done(f"{phase}; {picture.name} is not drawn")
    for sentence in missing:
        print(sentence)


def _import_tensorflow() -> tuple[Any, str]:
    """Return TensorFlow and no text, or None and a sentence that says why it is not available."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _silent_stderr():
            import tensorflow  # noqa: PLC0415

            # The demo only makes batches and need not take the memory of a GPU. TensorFlow
            # refuses this where it has run before.
            with contextlib.suppress(RuntimeError):
                tensorflow.config.set_visible_devices([], "GPU")
    except ImportError as error:
        install = 'Install it with: pip install "ptycho_fast[tensorflow]"'
        return None, f"TensorFlow is not available ({error}). {install}"
    except Exception as error:  # a broken installation can raise anything; the demo goes on
        return None, (
            f"TensorFlow is installed, but importing it fails: {type(error).__name__}: {error}"
        )
    return tensorflow, ""


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Silence what C++ writes to stderr: TensorFlow prints before it reads its log level."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
