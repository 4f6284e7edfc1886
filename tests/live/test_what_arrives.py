"""What arrives becomes the scan that `read_scan` makes of the finished file."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.canvas import place
from ptycho_fast.io.recipe import as_recipe
from ptycho_fast.live import News, ScanSource

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

QUICK: dict[str, Any] = {"num_threads": 1, "iterations": 2, "probe": "fixed", "prior": "none"}


class Sent(ScanSource):
    """News that the test sends, one by one; then the scan has ended."""

    name = "sent"

    def __init__(self, news: Iterable[News], **reading: Any) -> None:
        self.recipe = as_recipe(**{"counts": True, "unit": "px", **reading})
        self.news = iter(news)
        self.closed = False

    def poll(self) -> News:
        return next(self.news, News(ended="That was all."))

    def close(self) -> None:
        self.closed = True


def sent(
    frames: NDArray[Any], patterns: NDArray[Any], positions: NDArray[Any], **more: Any
) -> News:
    x, y = positions.T
    return News(frames, patterns, frames, x, y, **more)


def everything(counts: NDArray[Any], scan: pf.Scan, **more: Any) -> News:
    return sent(np.arange(len(scan)), counts, scan.positions, probe=scan.probe, **more)


LENGTHS = {"unit": "um", "energy_eV": 800.0, "distance_m": 1.0, "detector_pixel_m": 1e-4}
BAD = np.iinfo(np.uint32).max


@pytest.mark.parametrize(
    "reading",
    [
        {},
        LENGTHS,
        {**LENGTHS, "swap_xy": True, "flip_x": True, "flip_y": True, "crop": 12},
        {"crop": 12, "centre": (7, 8), "bin": 2},
        {"fftshift": True, "crop": 8},
        {"bad_value": 3.0, "drop_dark": True},
        {"counts": False},
        {"first": 100},
        {"mask": "mask"},
    ],
    ids=lambda reading: ",".join(reading) or "plain",
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_is_the_same_to_the_bit_as_the_finished_file(
    reading: dict[str, Any], counts: NDArray[Any], scan: pf.Scan, tmp_path: Path
) -> None:
    h5py = pytest.importorskip("h5py")
    stored = counts.copy()
    stored[20:60, 3, 5] = BAD  # bad in some
    stored[:, 9, 9] = BAD  # bad in all
    stored[70] = 0
    mask = np.zeros((16, 16), np.uint8)
    mask[2, 4:6] = 1
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["frames"], file["mask"] = stored, mask
        file["x"], file["y"] = scan.positions.T
    whole = {"counts": True, "unit": "px", **reading}
    expected = pf.read_scan(path, diffraction="frames", x="x", y="y", **whole)
    good = mask == 0 if "mask" in reading else None
    order = np.random.default_rng(1).permutation(150)
    y, x = np.mgrid[: expected.N, : expected.N] - expected.N // 2
    probe = np.exp(-(x**2 + y**2) / 8).astype(np.complex64)
    pieces = [
        sent(some, stored[some], scan.positions[some], mask=good, probe=probe)
        for some in np.array_split(order, 3)
    ]
    reading = {key: value for key, value in reading.items() if key != "mask"}
    source = Sent([*pieces, *pieces[:1]], **reading)
    source.poll()  # the first piece comes last, and frames in no order
    *_, last = pf.follow(source, final=QUICK)
    made = last.scan
    assert np.array_equal(made.positions, expected.positions)
    assert np.array_equal(made.diffraction, expected.diffraction)
    assert made.diffraction.dtype == expected.diffraction.dtype
    assert made.metadata.keys() == expected.metadata.keys()
    assert (made.mask is None) == (expected.mask is None)
    if made.mask is not None:
        assert (made.mask == expected.mask).all()
    rows = np.arange(len(expected))
    for mine, theirs in zip(made.measured(rows), expected.measured(rows), strict=True):
        assert np.array_equal(np.asarray(mine), np.asarray(theirs))
    assert source.closed


def error(image: pf.Reconstruction, scan: pf.Scan, rows: NDArray[Any]) -> float:
    """How far an image is from the object, where the windows of some positions lie.

    One factor is fitted: neither brightness nor phase are determined by counts.
    """
    moved = image.positions[0] - scan.positions[rows[0]]
    x, y = (round(value) for value in image.origin - moved)
    assert scan.object is not None
    made = place(image.object, (x, y), scan.object.shape)
    seen = np.zeros(scan.object.shape, np.bool_)
    for column, row in scan.positions[rows].round().astype(int):
        seen[row - 3 : row + 3, column - 3 : column + 3] = True
    truth, made = scan.object[seen], made[seen]
    factor = np.vdot(made, truth) / np.vdot(made, made)
    return float(np.linalg.norm(factor * made - truth) / np.linalg.norm(truth))


def test_the_picture_shows_the_object_while_it_grows(counts: NDArray[Any], scan: pf.Scan) -> None:
    pieces = [
        sent(some, counts[some], scan.positions[some], probe=scan.probe)
        for some in np.array_split(np.arange(150), 5)
    ]
    shown = []
    for update in itertools.islice(pf.follow(Sent(pieces), final=QUICK), 4):
        rows = np.arange(update.n)
        flat = pf.Reconstruction(
            np.ones_like(update.image.object), update.image.origin, update.image.probe,
            update.image.positions, update.image.coverage, 1.0, 0.0,
        )  # fmt: skip
        shown.append(update.n)
        assert error(update.image, scan, rows) < 0.1
        assert error(flat, scan, rows) > 0.2
    assert shown == [60, 90, 120, 150]


def test_the_picture_stays_where_it_is_while_the_zero_moves(
    counts: NDArray[Any], scan: pf.Scan
) -> None:
    """Of positions in metres, the smallest become N // 2: here each piece has smaller ones."""
    order = np.argsort(-scan.positions[:, 1], kind="stable")
    side = 800.0 * 1e-6 * 16 * 1e-4 / 1.2398419843320026e-6
    pieces = [
        sent(some, counts[some], scan.positions[some] / side, probe=scan.probe)
        for some in np.array_split(order, 4)
    ]
    reading = {**LENGTHS, "distance_m": 1.0}
    for update in itertools.islice(pf.follow(Sent(pieces, **reading), final=QUICK), 3):
        rows = np.sort(order[: update.n])
        assert error(update.image, scan, rows) < 0.15
        assert update.image.pixel_size == pytest.approx(1e-6 / side)


def test_a_gap_that_never_fills_is_told_and_left_out(counts: NDArray[Any], scan: pf.Scan) -> None:
    kept = np.delete(np.arange(150), [17, 80])
    news = [
        News(kept, counts[kept], probe=scan.probe),
        News(places=np.arange(149), x=scan.positions[:149, 0], y=scan.positions[:149, 1]),
    ]
    *_, last = pf.follow(Sent(news, first=150), final=QUICK)
    assert np.array_equal(last.scan.diffraction, scan.diffraction[kept[:-1]])
    assert np.array_equal(last.scan.positions, scan.positions[kept[:-1]])
    assert "2 of 150 frames never came: 17, 80." in last.image.notes
    assert "1 of 148 frames have no position: 149." in last.image.notes


def test_frames_that_come_twice_are_counted_once(counts: NDArray[Any], scan: pf.Scan) -> None:
    again = News(np.arange(40, 60), counts[:20])
    *_, last = pf.follow(Sent([everything(counts, scan), again]), final=QUICK)
    assert np.array_equal(last.scan.diffraction, scan.diffraction)
    assert "20 frames came twice; the first was kept." in last.image.notes


def test_positions_of_one_frame_are_averaged_where_that_is_asked_for(
    counts: NDArray[Any], scan: pf.Scan
) -> None:
    twice = np.repeat(np.arange(150), 2)
    away = np.tile([-0.25, 0.25], 150)
    x, y = scan.positions[twice, 0] + away, scan.positions[twice, 1] - away
    news = News(np.arange(150), counts, twice, x, y, probe=scan.probe)
    *_, last = pf.follow(Sent([news], average_positions=True), final=QUICK)
    assert np.allclose(last.scan.positions, scan.positions, atol=1e-12)
    with pytest.raises(ValueError, match="2 positions belong to frame 0"):
        list(pf.follow(Sent([news]), final=QUICK))


def test_positions_that_are_not_finite_are_not_there(counts: NDArray[Any], scan: pf.Scan) -> None:
    positions = scan.positions.copy()
    positions[4] = np.nan
    news = sent(np.arange(150), counts, positions, probe=scan.probe)
    *_, last = pf.follow(Sent([news]), final=QUICK)
    assert len(last.scan) == 149
    assert "1 of 150 frames have no position: 4." in last.image.notes


def test_what_has_arrived_is_a_scan_like_any_other(counts: NDArray[Any], scan: pf.Scan) -> None:
    update = next(pf.follow(Sent([everything(counts, scan)]), final=QUICK))
    arrived = update.scan
    groups = pf.group_positions(arrived.positions, 20, gridsize=2, seed=0)
    assert np.array_equal(
        groups.indices, pf.group_positions(scan.positions, 20, gridsize=2, seed=0).indices
    )
    mine, theirs = (pf.GroupedDataset(one, groups).batches(4) for one in (arrived, scan))
    for some, others in zip(mine, theirs, strict=True):
        assert np.array_equal(some["diffraction"], others["diffraction"])
    made, expected = (pf.reconstruct(one, **QUICK) for one in (arrived, scan))
    assert np.array_equal(made.object, expected.object)


def test_the_pretrained_network_takes_what_has_arrived(counts: NDArray[Any], scan: pf.Scan) -> None:
    pytest.importorskip("torch")
    from ptycho_fast.models import PtychoModel  # noqa: PLC0415

    update = next(pf.follow(Sent([everything(counts, scan)]), final=QUICK))
    made = PtychoModel.pretrained(N=16).infer(update.scan, device="cpu")
    assert np.isfinite(np.asarray(made.object)).all()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            np.ones((5, 8, 8), np.uint32),
            r"shape \(8, 8\) of uint32, but those before had \(16, 16\)",
        ),
        (np.ones((5, 16, 16), np.uint16), "of uint16, but those before had"),
        (np.ones((5, 16, 16), np.complex64), "must be .* of real numbers"),
        (np.ones((4, 16, 16), np.uint32), "for 5 frames"),
    ],
)
def test_frames_that_do_not_fit_are_refused(
    wrong: NDArray[Any], sentence: str, counts: NDArray[Any], scan: pf.Scan
) -> None:
    some = np.arange(100)
    news = [sent(some, counts[some], scan.positions[some], probe=scan.probe),
            News(np.arange(100, 105), wrong)]  # fmt: skip
    source = Sent(news)
    updates = pf.follow(source, final=QUICK)
    assert next(updates).n == 100
    with pytest.raises(ValueError, match=sentence):
        next(updates)
    assert source.closed


def test_a_probe_that_does_not_fit_is_left_out_once(counts: NDArray[Any], scan: pf.Scan) -> None:
    news = sent(np.arange(150), counts, scan.positions, probe=np.ones((8, 8), np.complex64))
    with pytest.warns(UserWarning, match="which does not fit patterns of 16 x 16") as told:
        update = next(pf.follow(Sent([news]), final={"num_threads": 1, "probe_diameter": 6.0}))
    assert update.scan.probe is None
    assert len([one for one in told if "does not fit" in str(one.message)]) == 1


def test_a_source_says_itself_what_it_holds() -> None:
    with pytest.raises(ValueError, match="sent says itself what it holds; leave out unit"):
        pf.follow(Sent([]), unit="px")


def test_an_interrupt_leaves_the_image_so_far(counts: NDArray[Any], scan: pf.Scan) -> None:
    class Interrupted(Sent):
        def poll(self) -> News:
            news = super().poll()
            if news.ended:
                raise KeyboardInterrupt
            return news

    some = np.arange(100)
    source = Interrupted([sent(some, counts[some], scan.positions[some], probe=scan.probe)])
    before, last = pf.follow(source)
    assert last.final
    assert not last.stored
    assert np.array_equal(last.image.object, before.image.object)
    assert "Interrupted: this is the image as it was then." in last.image.notes
    assert np.array_equal(last.scan.diffraction, scan.diffraction[:100])
    with pytest.raises(KeyboardInterrupt):
        next(pf.follow(Interrupted([])))
