"""What a file is that cannot be read here, and how to bring its numbers into a scan."""

from __future__ import annotations

import os

from ptycho_fast.io.regular import open_regular

HEAD_BYTES = 4096

SAVE = (
    'numpy.savez("scan.npz", diff3d=patterns, xcoords=x, ycoords=y), where patterns are '
    "amplitudes and x and y are pixels of the object"
)

READ = "NPZ, CXI, ptychodus and other HDF5, NPY, TIFF and MATLAB"

SIGNATURES = {
    b"\x89PNG": ("a PNG picture", "imageio.imread"),
    b"\xff\xd8\xff": ("a JPEG picture", "imageio.imread"),
    b"CDF\x01": ("a NetCDF 3 file", "scipy.io.netcdf_file"),
    b"CDF\x02": ("a NetCDF 3 file", "scipy.io.netcdf_file"),
    b"\x0e\x03\x13\x01": ("an HDF4 file", "pyhdf"),
    b"###CBF": ("a CBF file", "fabio.open"),
    b"SIMPLE  =": ("a FITS file", "astropy.io.fits.getdata"),
}
"""The first bytes of a file -> (what it is, what reads it)."""

PACKED = {b"\x1f\x8b": "gzip -d", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"(\xb5/\xfd": "unzstd"}
"""The first bytes of a compressed file -> what decompresses it."""


def what_it_is(path: str | os.PathLike[str]) -> str | None:
    """Say what a file of another format is, and how to bring it into a scan.

    Parameters
    ----------
    path : path
        A file that `ptycho_fast.read_scan` cannot read.

    Returns
    -------
    str or None
        A sentence; None if its format is unknown.

    Raises
    ------
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from ptycho_fast.io.foreign import what_it_is
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "patterns.fits"
    >>> path.write_bytes(b"SIMPLE  = T")
    11
    >>> what_it_is(path).partition("patterns.fits")[2][:15]
    ' is a FITS file'
    """
    with open_regular(path) as file:
        head = file.read(HEAD_BYTES)
    name = os.fspath(path)
    if not head:
        return f"{name} is empty. Copy or write it again."
    for sign, tool in PACKED.items():
        if head.startswith(sign):
            return f"{name} is compressed. Decompress it first: {tool} {name}"
    kind = next((found for sign, found in SIGNATURES.items() if head.startswith(sign)), None)
    if kind is None and not is_text(head):
        return None
    what, reader = kind or ("text", None)
    if what == "text":
        cure = f"The columns of a text file can be named beside the patterns: x='{name}:0' (--x)."
    else:
        cure = f"Load it with {reader} and save it as a scan: {SAVE}."
    return f"{name} is {what}. The formats that can be read are {READ}. {cure}"


def is_text(head: bytes) -> bool:
    """Tell whether the first bytes of a file are text; the last character may be cut off."""
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return False
    return "\n" in text and all(c.isprintable() or c in "\t\r\n\f\ufeff" for c in text)
