"""Files that would execute code if they were unpickled."""

from __future__ import annotations

import io
import os
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class MakesFolder:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (self.path,)


def pickled(hostile: MakesFolder, way: str) -> bytes:
    """The bytes of a file that holds it: "pickle", "torch" or "numpy"."""
    file = io.BytesIO()
    if way == "torch":
        torch.save({"weights": hostile}, file)
    elif way == "numpy":
        np.save(file, np.array([hostile], object), allow_pickle=True)
    else:
        pickle.dump(hostile, file)
    return file.getvalue()
