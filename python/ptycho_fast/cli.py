"""The command line, `ptycho-fast`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast import __version__, groups_cache
from ptycho_fast.grouping import ENGINES, Groups, ScanIndex, group_positions
from ptycho_fast.grouping.rules import RULES, STRATEGIES
from ptycho_fast.io import cache, convert, examine, named, read_scan, write_scan
from ptycho_fast.io.prepare import METRES
from ptycho_fast.io.suggest import proposal
from ptycho_fast.patches.cpu import extract_patches
from ptycho_fast.patterns import gather_patterns
from ptycho_fast.plot import plot_scan
from ptycho_fast.quality import coverage
from ptycho_fast.simulate import simulate_scan
from ptycho_fast.subsampling import count_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ptycho_fast.io.survey import Survey
    from ptycho_fast.scan import Scan

logger = logging.getLogger("ptycho_fast")

TIE_NEIGHBORS = 7
"""`inspect` looks for ties at this neighbour, and tries groups: the default K at gridsize 2."""

DEVICES = ("auto", "cpu", "gpu")

DEMO_BATCHES, DEMO_BATCH_SIZE = 8, 32


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, or 2 for what a user can put right.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; ``sys.argv[1:]`` by default.

    Returns
    -------
    int
    """
    arguments = _parser().parse_args(argv)
    if arguments.verbose:
        logging.basicConfig(format="%(name)s: %(message)s")
        logger.setLevel(logging.INFO)
    logger.info("%s, Python %s, NumPy %s", __version__, sys.version.split()[0], np.__version__)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: _complain("warning", str(message))
        try:
            arguments.run(arguments)
        except (OSError, KeyError, ValueError, ArithmeticError, ImportError, MemoryError) as error:
            _complain("error", _sentence(error))
            return 2
        except KeyboardInterrupt:
            _complain("error", "Interrupted.")
            return 130
    return 0


def _complain(kind: str, sentence: str) -> None:
    print(f"ptycho-fast: {kind}: {sentence}", file=sys.stderr)


def _sentence(error: Exception) -> str:
    """Return what an exception says, without the dress Python puts on it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    return str(error) or f"{type(error).__name__}."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ptycho-fast",
        description="From a ptychography scan to the batches a network trains on, and to an image.",
    )
    parser.add_argument("--version", action="version", version=f"ptycho-fast {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], None], summary: str, example: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"example:\n  ptycho-fast {name} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.add_argument("-v", "--verbose", action="store_true", help="show the log")
        added.set_defaults(run=run)
        return added

    demo = command(
        "demo",
        _demo,
        "Simulate a scan, group it, cut patches, make batches, draw a picture: all in seconds.",
        "-o .",
    )
    demo.add_argument(
        "-o", "--output", type=Path, default=Path(), metavar="DIR",
        help="folder for demo.png (default: this one)",
    )  # fmt: skip

    simulate = command(
        "simulate", _simulate, "Write a simulated scan to an NPZ file.",
        "-o scan.npz --positions 2000 --pixels 64 --trajectory spiral --seed 0",
    )  # fmt: skip
    simulate.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE.npz", help="the scan"
    )
    simulate.add_argument(
        "--positions", type=int, default=1000, metavar="n", help="scan positions (default: 1000)"
    )
    simulate.add_argument(
        "--pixels", type=int, default=64, metavar="N", help="pixels per side (default: 64)"
    )
    simulate.add_argument("--trajectory", choices=("raster", "spiral"), default="raster")
    simulate.add_argument(
        "--photons",
        type=float,
        default=1e6,
        metavar="P",
        help="mean photons per pattern (default: 1e6)",
    )
    simulate.add_argument(
        "--seed", type=int, metavar="S", help="(default: fresh; the file records it)"
    )

    inspect = command(
        "inspect",
        _inspect,
        "Show what a scan file holds, and whether it is fit to be grouped.",
        "scan.npz",
    )
    inspect.add_argument("file", type=Path, metavar="FILE", help="NPZ, CXI, ptychodus or HDF5")
    _add_reading(inspect)
    inspect.add_argument(
        "--plot", type=Path, metavar="PNG", help="draw the scan and its light on the object"
    )

    convert_ = command(
        "convert", _convert,
        "Write a scan of any format as an uncompressed NPZ file, which is read fastest.",
        "scan.npz small.npz --bin 2",
    )  # fmt: skip
    convert_.add_argument("file", type=Path, metavar="IN", help="NPZ, CXI, ptychodus or HDF5")
    convert_.add_argument("output", type=Path, metavar="OUT.npz", help="the scan")
    _add_reading(convert_)

    cache_ = command(
        "cache",
        _cache,
        "Show what was unpacked from compressed files, so that batches can be read; or clear it.",
        "--clear",
    )
    cache_.add_argument("--clear", action="store_true", help="remove it; nothing in it is needed")

    clean = command(
        "clean-cache", _clean_cache,
        "Find *.groups_cache.npz files in a folder and all below it, and remove them.",
        "scans --dry-run",
    )  # fmt: skip
    clean.add_argument("folder", type=Path, metavar="DIR", help="where to look")
    clean.add_argument("--dry-run", action="store_true", help="only say what is there")

    group = command(
        "group", _group, "Draw groups of overlapping positions from a scan file.",
        "scan.npz --gridsize 2 --neighbors 7 --groups 512 --seed 42 -o groups.npz "
        "--plot groups.png",
    )  # fmt: skip
    group.usage = "ptycho-fast group FILE -o OUT.npz [options]"
    group.add_argument(
        "file", type=Path, metavar="FILE", help="the scan: NPZ, CXI, ptychodus or HDF5"
    )
    group.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT.npz", help="the groups"
    )
    group.add_argument(
        "--gridsize", type=int, default=2, metavar="G",
        help="groups of C = G² positions (default: 2)",
    )  # fmt: skip
    group.add_argument(
        "--neighbors", type=int, metavar="K",
        help="draw from the K nearest neighbours of a centre (default: C + 3; 30 of --rule "
        "overlap)",
    )  # fmt: skip
    _add_how_much(group)
    group.add_argument(
        "--seed", type=int, metavar="S", help="(default: fresh; the file records it)"
    )
    group.add_argument(
        "--epoch", type=int, default=0, metavar="E", help="other groups of a seed (default: 0)"
    )
    group.add_argument(
        "--rng", choices=("philox", "numpy"), default="philox",
        help="numpy: the groups that older code drew with this seed (default: philox)",
    )  # fmt: skip
    _add_rules(group)
    group.add_argument(
        "--threads", type=int, metavar="T", help="(default: all that the process may use)"
    )
    _add_reading(group)
    group.add_argument(
        "--plot", type=Path, metavar="PNG", help="draw the scan, the groups and what they cover"
    )

    train = command(
        "train", _train, "Train a network on the patterns of a scan, and image it.",
        "SCAN.npz -o RUN/ --architecture hybrid_resnet --gridsize 2 --n-images 2576 --epochs 5",
    )  # fmt: skip
    train.usage = "ptycho-fast train FILE -o RUN/ [options]"
    _add_training(train)
    _add_reading(train)

    infer = command(
        "infer", _infer, "Image a scan with a trained network: object, coverage, scores, picture.",
        "RUN/ SCAN.npz -o OUT/ --n-images 1024 --refine 10",
    )  # fmt: skip
    infer.usage = "ptycho-fast infer RUN/ FILE -o OUT/ [options]"
    infer.add_argument("run_folder", type=Path, metavar="RUN/", help="what train wrote")
    infer.add_argument("file", type=Path, metavar="FILE", help="the scan")
    infer.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT/",
        help="a folder for object.npy, coverage.npy, metrics.json and image.png",
    )  # fmt: skip
    _add_count(infer)
    infer.add_argument(
        "--neighbors", type=int, metavar="K",
        help="draw groups from the K nearest neighbours of a centre (default: G²)",
    )  # fmt: skip
    infer.add_argument(
        "--refine", type=int, default=0, metavar="P",
        help="classical passes from the network's image (default: 0)",
    )  # fmt: skip
    infer.add_argument("--device", choices=DEVICES, default="auto", help="(default: auto)")
    _add_reading(infer)
    return parser


def _add_training(train: argparse.ArgumentParser) -> None:
    """Add the options of a model and of its training."""
    train.add_argument("file", type=Path, metavar="FILE", help="the scan, with its probe")
    train.add_argument(
        "-o", "--output", type=Path, required=True, metavar="RUN/",
        help="a folder for the model, its checkpoint, history.csv and pictures",
    )  # fmt: skip
    train.add_argument(
        "--architecture", default="cnn", metavar="NAME",
        help="cnn, fno, hybrid or hybrid_resnet (default: cnn)",
    )  # fmt: skip
    train.add_argument(
        "--gridsize", type=int, default=1, metavar="G",
        help="the network sees groups of G² patterns (default: 1)",
    )  # fmt: skip
    train.add_argument(
        "--neighbors", type=int, default=4, metavar="K",
        help="draw groups from the K nearest neighbours of a centre (default: 4)",
    )  # fmt: skip
    _add_count(train)
    train.add_argument("--epochs", type=int, default=15, metavar="E", help="(default: 15)")
    train.add_argument(
        "--batch-size", type=int, metavar="B",
        help="groups per step (default: as many as hold 8 patterns)",
    )  # fmt: skip
    train.add_argument(
        "--loss", choices=("poisson", "amplitude"), default="poisson", help="(default: poisson)"
    )
    train.add_argument(
        "--schedule", choices=("cosine", "plateau"), default="cosine", help="(default: cosine)"
    )
    train.add_argument(
        "--learning-rate", type=float, default=2e-3, metavar="R", help="(default: 2e-3)"
    )
    train.add_argument("--seed", type=int, default=0, metavar="S", help="(default: 0)")
    train.add_argument(
        "--validation", type=float, metavar="SHARE", help="hold out this share of the scan"
    )
    train.add_argument(
        "--refine-probe", type=int, default=0, metavar="P",
        help="classical passes that refine the probe first: 20 for measured data (default: 0)",
    )  # fmt: skip
    train.add_argument(
        "--least-exposure", type=float, default=1.0, metavar="SHARE",
        help="show patterns thinned down to this share: 1e-3 to image dark ones (default: 1)",
    )  # fmt: skip
    train.add_argument("--trainable-probe", action="store_true", help="learn the probe too")
    train.add_argument(
        "--picture-every", type=int, default=5, metavar="E",
        help="epochs from picture to picture, 0 for none (default: 5)",
    )  # fmt: skip
    train.add_argument(
        "--resume",
        action="store_true",
        help="go on from the checkpoint in RUN/, with the scan and the options it was begun with",
    )
    train.add_argument("--device", choices=DEVICES, default="auto", help="(default: auto)")
    train.add_argument(
        "--devices", type=int, default=1, metavar="D", help="that train together (default: 1)"
    )


def _add_count(command: argparse._ActionsContainer) -> None:
    """Add the two ways of saying how many groups."""
    count = command.add_mutually_exclusive_group()
    count.add_argument(
        "--groups", "--n-groups", type=int, metavar="B",
        help="groups (default: one around every position)",
    )  # fmt: skip
    count.add_argument(
        "--n-images", type=int, metavar="B",
        help="at gridsize 1 images, above it groups: 512 at gridsize 2 are 2048 patterns",
    )  # fmt: skip


def _add_how_much(command: argparse.ArgumentParser) -> None:
    """Add the options that say how much of a scan is used."""
    much = command.add_argument_group("how much of the scan")
    _add_count(much)
    much.add_argument(
        "--n-subsample", type=int, metavar="n",
        help="first thin the scan to n positions; the groups are those of "
        "read_scan(FILE).subsample(n, seed)",
    )  # fmt: skip
    much.add_argument(
        "--subsample-seed", type=int, metavar="S", help="of the thinning (default: fresh, printed)"
    )


def _add_rules(command: argparse.ArgumentParser) -> None:
    """Add the options that say what a group is."""
    rules = command.add_argument_group("what a group is")
    rules.add_argument(
        "--rule", choices=RULES, default="nearest",
        help="nearest: C of the K nearest neighbours; oversample: likewise, more groups than "
        "positions; quadrant: one of each quadrant; overlap: all overlap (default: nearest)",
    )  # fmt: skip
    rules.add_argument(
        "--strategy", choices=STRATEGIES, default=STRATEGIES[0],
        help="the latter lists the groups of all positions and samples the list "
        f"(default: {STRATEGIES[0]})",
    )  # fmt: skip
    rules.add_argument("--include-center", action="store_true", help="channel 0 is the centre")
    rules.add_argument(
        "--min-distance", type=float, metavar="D", help="pixels from the centre to its neighbours"
    )
    rules.add_argument(
        "--max-distance", type=float, metavar="D", help="likewise; --rule quadrant needs it"
    )
    rules.add_argument(
        "--min-overlap", type=float, metavar="S",
        help="share of a pattern's window, of --rule overlap (default: 0.25)",
    )  # fmt: skip
    rules.add_argument(
        "--bounds", type=_bounds, metavar="X0,X1,Y0,Y1",
        help="centres lie in this part of the scan's extent, 0..1",
    )  # fmt: skip
    rules.add_argument(
        "--engine", choices=ENGINES, default="auto",
        help="what finds the neighbours; the groups are the same (default: auto)",
    )  # fmt: skip
    rules.add_argument(
        "--cache", action="store_true",
        help="of group-then-sample: keep the list beside the scan, FILE.gGkK.groups_cache.npz",
    )  # fmt: skip
    rules.add_argument("--compress", action="store_true", help="a smaller file, and slower")


def _bounds(text: str) -> tuple[tuple[float, float], tuple[float, float]]:
    x0, x1, y0, y1 = _numbers(text, 4)
    return (x0, x1), (y0, y1)


def _add_reading(command: argparse.ArgumentParser) -> None:
    """Add the options that say what is in a file."""
    reading = command.add_argument_group(
        "what the file holds",
        "A file that is no NPZ scan, CXI or ptychodus product needs --diffraction, --x, --y,\n"
        "--unit and --counts or --amplitude. KEY is a data set, KEY[:,0] a column of it, and\n"
        "FILE:KEY one in another file.",
    )
    told = reading.add_mutually_exclusive_group()
    told.add_argument(
        "--counts", "--intensity", action="store_true", default=None, dest="intensity",
        help="patterns are counts",
    )  # fmt: skip
    told.add_argument(
        "--amplitude", action="store_false", dest="intensity", help="patterns are their roots"
    )
    for name, summary in {
        "diffraction": "patterns (n, rows, columns)",
        "x": "position along object columns",
        "y": "position along object rows",
        "probe": "the illumination",
        "mask": "of the detector: of bools, True is good; of numbers, 0 is good",
        "index": "for each position its frame, or for each frame its position, from 0",
    }.items():
        reading.add_argument(f"--{name}", metavar="KEY", help=summary)
    reading.add_argument("--unit", choices=(*METRES, "px"), help="of x and y")
    reading.add_argument("--energy-eV", type=float, metavar="E", help="of a photon")
    reading.add_argument("--distance-m", type=float, metavar="Z", help="sample to detector")
    reading.add_argument("--detector-pixel-m", type=float, metavar="P", help="its side")
    reading.add_argument("--swap-xy", action="store_true", help="exchange the axes of the motors")
    reading.add_argument("--flip-x", action="store_true", help="then mirror x")
    reading.add_argument("--flip-y", action="store_true", help="then mirror y")
    reading.add_argument("--crop", type=int, metavar="N", help="keep N by N detector pixels")
    reading.add_argument(
        "--centre", type=_row_column, metavar="ROW,COL", help="about this one (default: the middle)"
    )
    reading.add_argument("--bin", type=int, metavar="M", help="sum the counts of M by M pixels")
    reading.add_argument(
        "--fftshift", action="store_true", help="zero frequency is in the corner: to the middle"
    )
    reading.add_argument(
        "--invert-mask", action="store_true", help="the mask counts the other way round"
    )
    reading.add_argument("--bad-value", type=float, metavar="V", help="stored V marks bad pixels")
    reading.add_argument("--drop-dark", action="store_true", help="leave out patterns of nothing")
    reading.add_argument(
        "--frames-axis", type=int, choices=(0, 2), help="axis of a stack that counts the frames"
    )
    reading.add_argument(
        "--reshape", action="store_true", help="grids (ny, nx) of frames and positions, row by row"
    )
    reading.add_argument("--first", type=int, metavar="N", help="the first N frames and positions")
    reading.add_argument(
        "--index-base", type=int, choices=(0, 1), help="first number of --index (default: 0)"
    )
    reading.add_argument(
        "--average-positions", action="store_true", help="several positions of a frame: their mean"
    )


def _row_column(text: str) -> tuple[float, float]:
    row, column = _numbers(text, 2)
    return row, column


def _numbers(text: str, count: int) -> list[float]:
    """Return numbers between commas; argparse says what else it was."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        msg = f"{count} numbers with commas between them are needed, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return numbers


def _reading(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what `read_scan` is to be told."""
    names = (
        "intensity", "diffraction", "x", "y", "probe", "mask", "index", "unit", "energy_eV",
        "distance_m", "detector_pixel_m", "swap_xy", "flip_x", "flip_y", "crop", "centre", "bin",
        "fftshift", "invert_mask", "bad_value", "drop_dark", "frames_axis", "reshape", "first",
        "index_base", "average_positions",
    )  # fmt: skip
    return {name: getattr(arguments, name) for name in names}


def _demo(arguments: argparse.Namespace) -> None:
    picture = arguments.output / "demo.png"
    _check_output(picture)
    missing = []
    with _step("simulate") as step:
        scan = simulate_scan(1000, 64, trajectory="spiral", seed=0, progress=step.advance)
        step.done(f"{len(scan)} patterns of {scan.N} x {scan.N}, Fermat spiral, photon noise")
    with _step("group") as step:
        groups = group_positions(scan.positions, gridsize=2, n_neighbors=7, seed=42)
        step.done(
            f"{len(groups)} groups of {groups.group_size} among {groups.n_neighbors} neighbours"
        )
    assert scan.object is not None
    with _step("patches") as step:
        positions = scan.positions[groups.indices].transpose(0, 2, 1)
        patches = extract_patches(scan.object, positions, scan.N)
        step.done(f"{patches.shape} {patches.dtype}")
    with _step("TensorFlow") as step:
        tensorflow = _import_tensorflow()
        if isinstance(tensorflow, str):
            missing.append(tensorflow)
        step.done("not there" if isinstance(tensorflow, str) else tensorflow.__version__)
    with _step("batches") as step:
        if isinstance(tensorflow, str):
            feed, batches = "NumPy", _numpy_batches(scan, groups)
        else:
            feed, batches = "tf.data", _tensorflow_batches(tensorflow, scan, groups)
        for batch in batches:
            arrays = dict(zip(("diffraction", "coords_relative", "patches"), batch, strict=True))
            step.advance(1 / DEMO_BATCHES)
        step.done(f"{DEMO_BATCHES} of {DEMO_BATCH_SIZE} groups through {feed}")
    for name, array in arrays.items():
        print(f"{'':12}{name} {tuple(array.shape)} {array.dtype.name}")
    with _step("picture") as step:
        try:
            plot_scan(scan, picture, groups)
            step.done(str(picture))
        except ImportError as error:
            missing.append(str(error))
            step.done("not there")
    for sentence in missing:
        print(sentence)


def _import_tensorflow() -> Any:
    """Return TensorFlow, quiet, or a sentence that says why it is not there."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _silent_stderr():
            import tensorflow  # noqa: PLC0415

            # The demo only feeds: no need to take the memory of a GPU. (Refused where
            # TensorFlow has run before.)
            with contextlib.suppress(RuntimeError):
                tensorflow.config.set_visible_devices([], "GPU")
    except ImportError as error:
        return f'No TensorFlow ({error}). Install it with: pip install "ptycho_fast[tensorflow]"'
    except Exception as error:  # a broken installation raises anything; the demo goes on
        return f"TensorFlow is installed, but importing it fails: {type(error).__name__}: {error}"
    return tensorflow


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Silence what C++ writes to stderr: TensorFlow greets before it reads its log level."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _batch(scan: Scan, groups: Groups, rows: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
    """Return patterns, relative coordinates and object patches of some groups."""
    assert scan.object is not None
    positions = groups.coords[rows]
    return (
        gather_patterns(scan.diffraction, groups.indices[rows]),
        groups.relative[rows],
        extract_patches(scan.object, positions, scan.N),
    )


def _numpy_batches(scan: Scan, groups: Groups) -> Iterator[tuple[NDArray[Any], ...]]:
    for first in range(0, DEMO_BATCHES * DEMO_BATCH_SIZE, DEMO_BATCH_SIZE):
        yield _batch(scan, groups, np.arange(first, first + DEMO_BATCH_SIZE))


def _tensorflow_batches(tf: Any, scan: Scan, groups: Groups) -> Any:
    rows = tf.data.Dataset.from_tensor_slices(np.arange(len(groups))).batch(DEMO_BATCH_SIZE)
    types = (tf.float32, tf.float64, tf.complex64)
    return rows.map(
        lambda some: tf.numpy_function(lambda rows: _batch(scan, groups, rows), [some], types)
    ).take(DEMO_BATCHES)


def _simulate(arguments: argparse.Namespace) -> None:
    _check_output(arguments.output)
    with _step("simulate") as step:
        scan = simulate_scan(
            arguments.positions,
            arguments.pixels,
            trajectory=arguments.trajectory,
            photons=arguments.photons,
            seed=arguments.seed,
            progress=step.advance,
        )
        step.done(
            f"{len(scan)} patterns of {scan.N} x {scan.N}, {arguments.trajectory}, "
            f"seed {scan.metadata['seed']}"
        )
    with _step("write") as step:
        write_scan(scan, arguments.output)
        step.done(str(arguments.output))


def _inspect(arguments: argparse.Namespace) -> None:
    _check_beside(arguments.file, arguments.plot)
    members = named.members(arguments.file)
    width = max((len(key) for key in members), default=0)
    for key, member in members.items():
        chunks = "" if member.chunks is None else f"  chunks {member.chunks}"
        print(f"{key:{width}}  {member.dtype!s:10}  {member.shape}{chunks}")
    print()
    memory = sum(np.prod(m.shape, dtype=float) * m.dtype.itemsize for m in members.values())
    try:
        with _bar("inspect") as advance:
            scan, survey = examine(arguments.file, progress=advance, **_reading(arguments))
    except KeyError:
        # Its keys are unknown, or not all are named.
        print(proposal(arguments.file, members), flush=True)
        raise
    index = ScanIndex(scan.positions)
    n = len(scan)
    (left, top), (right, bottom) = scan.positions.min(axis=0), scan.positions.max(axis=0)
    spacing, duplicates, ties = "none: there is one position", "none", "none"
    if n > 1:
        nearest = _distances(scan.positions, index.neighbors(1))[:, 0]
        spacing = (
            f"median {np.median(nearest):.4g}, {nearest.min():.4g} .. {nearest.max():.4g} "
            "pixels to the nearest neighbour"
        )
        same = np.count_nonzero(nearest == 0)
        duplicates = f"{same} of {n} positions coincide with another"
    if n > TIE_NEIGHBORS + 1:
        last, next_ = _distances(scan.positions, index.neighbors(TIE_NEIGHBORS + 1)[:, -2:]).T
        ties = (
            f"{np.count_nonzero(last == next_) / n:.1%} of positions have neighbours "
            f"{TIE_NEIGHBORS} and {TIE_NEIGHBORS + 1} at the same distance"
        )
    for name, value in {
        "positions": str(n),
        "N": f"{scan.N} pixels",
        "stored": _stored(survey, told=arguments.intensity is not None),
        "amplitude": f"{0 if survey.intensity else survey.lowest:g} .. {survey.brightest:g}",
        "light": _light(survey),
        "bad pixels": _bad_pixels(scan.mask, survey),
        "dark": f"{len(survey.dark)} of {survey.n} patterns hold nothing",
        "extent": f"x {left:.6g} .. {right:.6g}, y {top:.6g} .. {bottom:.6g} pixels",
        "spacing": spacing,
        "duplicates": duplicates,
        "ties": ties,
        "probe": _presence(scan.probe),
        "object": _presence(scan.object),
        "memory": f"{memory / 2**20:.1f} MiB",
    }.items():
        print(f"{name:<12}{value}")
    if n > TIE_NEIGHBORS:
        groups = group_positions(index, gridsize=2, n_neighbors=TIE_NEIGHBORS, seed=0)
        print(f"\nGroups of 4 of the {TIE_NEIGHBORS} neighbours of every position, seed 0:")
        print(coverage(scan, groups))
    if arguments.plot is not None:
        with _step("picture") as step:
            plot_scan(scan, arguments.plot)
            step.done(str(arguments.plot))


def _stored(survey: Survey, *, told: bool) -> str:
    kind = "counts" if survey.intensity else "amplitudes"
    stored = f"{kind} as {survey.stored}, {survey.lowest:.10g} .. {survey.highest:.10g}"
    if told or not survey.may_be_counts:
        return stored
    return f"{stored}; whole numbers: pass --counts if they are counts, --amplitude if not"


def _light(survey: Survey) -> str:
    if survey.centre is None:
        return "has no centre"
    (row, column), middle = survey.centre, len(survey.light) // 2
    return f"about row {row:.1f}, column {column:.1f}; zero frequency belongs at {middle}, {middle}"


def _bad_pixels(mask: NDArray[np.bool_] | None, survey: Survey) -> str:
    always = "0" if mask is None else f"{np.count_nonzero(~mask)} of {mask.size}"
    if survey.bad is None:
        return f"{always} in every pattern, no others"
    some = np.count_nonzero(np.diff(survey.bad.starts))
    return f"{always} in every pattern, {len(survey.bad.pixels)} more in {some} patterns"


def _distances(positions: NDArray[np.float64], neighbors: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the distances of neighbours, (n, k)."""
    difference = positions[neighbors] - positions[:, np.newaxis]
    squares: NDArray[np.float64] = np.square(difference, out=difference)
    return np.sqrt(squares[..., 0] + squares[..., 1])


def _presence(array: NDArray[Any] | None) -> str:
    return "absent" if array is None else f"{array.shape} {array.dtype}"


def _cache(arguments: argparse.Namespace) -> None:
    for path, size in cache.cached_files():
        print(f"{size / 2**20:10.1f} MiB  {path}")
    if arguments.clear:
        print(f"Freed {cache.clear_cache() / 2**20:.1f} MiB in {cache.cache_folder()}.")


def _clean_cache(arguments: argparse.Namespace) -> None:
    found = groups_cache.find(arguments.folder)
    for path, size in found:
        print(f"{size / 2**20:10.1f} MiB  {path}")
        if not arguments.dry_run:
            path.unlink(missing_ok=True)
    did = "Would remove" if arguments.dry_run else "Removed"
    total = sum(size for _, size in found) / 2**20
    print(f"{did} {len(found)} files, {total:.1f} MiB, from {arguments.folder}.")


def _convert(arguments: argparse.Namespace) -> None:
    _check_output(arguments.output)
    with _step("convert") as step:
        scan = convert(
            arguments.file, arguments.output, progress=step.advance, **_reading(arguments)
        )
        step.done(f"{len(scan)} patterns of {scan.N} x {scan.N} to {arguments.output}")
    (left, top), (right, bottom) = scan.positions.min(axis=0), scan.positions.max(axis=0)
    print(f"{'extent':12}x {left:.6g} .. {right:.6g}, y {top:.6g} .. {bottom:.6g} pixels")


def _group(arguments: argparse.Namespace) -> None:
    _check_beside(arguments.file, arguments.output, arguments.plot)
    with _step("read") as step:
        scan = read_scan(arguments.file, load=False, **_reading(arguments))
        step.done(f"n = {len(scan)} positions, patterns of {scan.N} x {scan.N}")
    if arguments.n_subsample is not None:
        with _step("subsample") as step:
            n = len(scan)
            scan = scan.subsample(arguments.n_subsample, arguments.subsample_seed)
            seed = scan.metadata["subsample_seed"]
            step.done(f"{len(scan)} of {n} positions, subsample seed {seed}")
    elif arguments.subsample_seed is not None:
        msg = "--subsample-seed is for --n-subsample, which is not given."
        raise ValueError(msg)
    with _step("group") as step:
        groups = group_positions(
            scan.positions,
            count_groups(
                arguments.gridsize, n_images=arguments.n_images, n_groups=arguments.groups
            ),
            gridsize=arguments.gridsize,
            n_neighbors=arguments.neighbors,
            seed=arguments.seed,
            epoch=arguments.epoch,
            rng=arguments.rng,
            rule=arguments.rule,
            strategy=arguments.strategy,
            include_center=arguments.include_center,
            min_distance=arguments.min_distance,
            max_distance=arguments.max_distance,
            N=scan.N if arguments.rule == "overlap" else None,
            min_overlap=arguments.min_overlap,
            bounds=arguments.bounds,
            engine=arguments.engine,
            num_threads=arguments.threads,
            cache=arguments.file if arguments.cache else None,
            compress=arguments.compress,
        )
        step.done(
            f"B = {len(groups)} groups of C = {groups.group_size}, K = {groups.n_neighbors}, "
            f"seed {groups.seed}, epoch {groups.epoch}"
        )
    print(f"{'patterns':12}{groups.indices.size}, {groups.group_size} a group")
    for reason, count in groups.left_out.items():
        print(f"{'left out':12}{count} centres, by {reason}")
    spread = np.sqrt(np.square(groups.relative[:, 0]).sum(axis=1).max(axis=1))
    print(
        f"{'spread':12}median {np.median(spread):.4g}, largest {spread.max():.4g} pixels from a "
        "group's mean to its farthest member"
    )
    print(coverage(scan, groups))
    with _step("write") as step:
        groups.save(arguments.output)
        step.done(str(arguments.output))
    if arguments.plot is not None:
        with _step("picture") as step:
            plot_scan(scan, arguments.plot, groups)
            step.done(str(arguments.plot))


def _train(arguments: argparse.Namespace) -> None:
    with _step("import") as step:
        from ptycho_fast.models import PtychoModel  # noqa: PLC0415

        step.done("PyTorch")
    with _step("read") as step:
        scan = read_scan(arguments.file, **_reading(arguments))
        step.done(f"n = {len(scan)} positions, patterns of {scan.N} x {scan.N}")
    model = PtychoModel(
        arguments.architecture,
        scan.N,
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
        scan,
        arguments.neighbors,
        count_groups(arguments.gridsize, n_images=arguments.n_images, n_groups=arguments.groups),
        arguments.batch_size,
        arguments.epochs,
        validation=arguments.validation,
        output=arguments.output,
        source=arguments.file,
        resume=arguments.resume,
        refine_probe=arguments.refine_probe,
        picture_every=arguments.picture_every,
        device=arguments.device,
        devices=arguments.devices,
    )
    if history:  # none is left where somebody removed it and all epochs were done
        seconds = sum(float(row["seconds"]) for row in history)
        print(f"{'trained':12}{len(history)} epochs in {_duration(seconds)}")
        print(f"{'loss':12}{float(history[0]['loss']):.4g} -> {float(history[-1]['loss']):.4g}")
    print(f"{'written':12}{arguments.output}")


def _infer(arguments: argparse.Namespace) -> None:
    with _step("import") as step:
        from ptycho_fast.models import PtychoModel  # noqa: PLC0415

        step.done("PyTorch")
    with _step("read") as step:
        model = PtychoModel.load(arguments.run_folder)
        scan = read_scan(arguments.file, **_reading(arguments))
        step.done(f"{model}, n = {len(scan)} positions")
    with _step("image") as step:
        made = model.infer(
            scan,
            refine=arguments.refine,
            n_groups=count_groups(
                model.model_config.gridsize, n_images=arguments.n_images, n_groups=arguments.groups
            ),
            neighbor_count=arguments.neighbors,
            device=arguments.device,
        )
        step.done("done" if made.object is None else f"{made.object.shape} pixels")
    for name, value in made.metrics.items():
        if isinstance(value, float):
            print(f"{name.replace('_', ' '):23}{value:.4f}")
    twin = made.metrics.get("twin")
    if twin is not None:
        print(f"{'of the twin':23}phase rmse {twin['phase_rmse']:.4f}")
    with _step("write") as step:
        made.save(arguments.output)
        step.done(str(arguments.output))


class _Step:
    """A step of a command: a bar while it runs (for more than a second, on a terminal)."""

    def __init__(self, advance: Callable[[float], object]) -> None:
        self.advance = advance
        self.result = ""

    def done(self, result: str) -> None:
        """Keep what the step's line in the table is to say."""
        self.result = result


@contextlib.contextmanager
def _step(name: str) -> Iterator[_Step]:
    """Time a step, show how far it is, and print its line of the table when it is through."""
    start = time.perf_counter()
    with _bar(name) as advance:
        step = _Step(advance)
        yield step
    print(f"{name:12}{step.result:64} {_duration(time.perf_counter() - start):>9}")


@contextlib.contextmanager
def _bar(name: str) -> Iterator[Callable[[float], object]]:
    try:
        from tqdm import tqdm  # noqa: PLC0415
    except ImportError:
        tqdm = None
    if tqdm is None:
        yield lambda share: None
        return
    form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}"
    # disable=None: off where stderr is no terminal.
    with tqdm(total=1, desc=name, bar_format=form, leave=False, delay=1, disable=None) as bar:
        through = threading.Event()

        def tick() -> None:
            while not through.wait(1):
                bar.refresh()

        # One long call into the core or the disk updates nothing: the clock at least goes on.
        clock = threading.Thread(target=tick, daemon=True)
        if not bar.disable:
            clock.start()
        try:
            yield bar.update
        finally:
            through.set()
            if not bar.disable:
                clock.join()


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _check_output(path: Path) -> None:
    """Refuse a file that can't be written before work is put into it."""
    if not path.parent.is_dir():
        msg = f"{path} can't be written: there is no folder {path.parent}. Make it first."
        raise OSError(msg)
    if path.is_dir():
        msg = f"{path} can't be written: it is a folder. Name a file in it."
        raise OSError(msg)


def _check_beside(scan: Path, *outputs: Path | None) -> None:
    """Refuse outputs that can't be written, or are the scan itself."""
    for path in outputs:
        if path is not None:
            _check_output(path)
            if path.exists() and scan.exists() and path.samefile(scan):
                msg = f"{path} is the scan itself. Write to another file."
                raise ValueError(msg)


if __name__ == "__main__":
    sys.exit(main())
