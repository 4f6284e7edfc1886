"""The folder of each scan of a series."""

from __future__ import annotations

import pytest

from ptycho_fast.series.names import name_folders


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ("/d/scan_1.h5 /d/scan_2.h5", "scan_1 scan_2"),
        ("/d/a.b.h5", "a.b"),
        ("/S1/data.h5 /S2/data.h5 /S2/dark.h5", "S1_data S2_data dark"),
        ("/d/scan.h5 /d/scan.npz", "scan.h5 scan.npz"),
        ("/1/S/d.h5 /2/S/d.h5 /2/T/d.h5", "1_S_d 2_S_d T_d"),
        ("/a/x.h5 /b_a/x.h5 /c/b_a_x.h5", "a_x b_a_x.h5 b_a_x"),
    ],
)
def test_names_are_short_and_different(files: str, names: str) -> None:
    given = files.split()
    found = name_folders(given, {}, [])
    assert list(found) == given
    assert len(set(found.values())) == len(given)
    assert list(found.values()) == names.split()


def test_known_files_keep_their_folders_and_new_ones_are_named_alike() -> None:
    known = {"/S1/data.h5": "S1_data", "/d/x.h5": "mine"}
    found = name_folders(["/S2/data.h5", "/d/x.h5", "/e/x.h5", "/f/mine.h5"], known, ["series.csv"])
    assert found == {
        "/S2/data.h5": "S2_data",
        "/d/x.h5": "mine",
        "/e/x.h5": "e_x",
        "/f/mine.h5": "mine.h5",
    }


def test_names_of_other_things_are_avoided() -> None:
    assert name_folders(["/d/series.csv.h5"], {}, ["series.csv"]) == {
        "/d/series.csv.h5": "series.csv.h5"
    }


def test_a_file_that_has_no_name_left_is_refused() -> None:
    with pytest.raises(ValueError, match="No folder can be named after /scan: another scan"):
        name_folders(["/scan"], {}, ["scan"])
