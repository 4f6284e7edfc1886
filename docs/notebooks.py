"""Run the notebooks while the site is built, and make a page of each (a hook of mkdocs).

They are committed without outputs. A page is the notebook in Markdown, with what its cells printed
and drew. It can thus link to other pages, which `mkdocs build --strict` checks. A cell that fails
ends the build.
"""

from __future__ import annotations

import base64
import functools
import os
import re
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import nbformat
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig

PLACE = re.compile(r"\S*ipykernel_\d+\S*?\.py:\d+: ")
"""Where the kernel keeps a cell, at the head of a warning: another folder in each run."""

OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n)")
"""What a progress bar drew before it drew the rest of its line."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add a page, and its pictures, for each notebook; the notebook itself can be downloaded."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        pictures: dict[str, bytes] = {}
        text = "\n\n".join(_cells(_run(file.content_string, file.src_uri), file.name, pictures))
        title, _, rest = text.partition("\n")
        # The brackets keep `on_page_markdown` from this link.
        text = f"{title}\n\n[Download this page as a notebook](<{file.name}.ipynb>)\n{rest}"
        page = file.src_uri.removesuffix(".ipynb") + ".md"
        files.append(File.generated(config, page, content=text))
        for name, content in pictures.items():
            beside = file.src_uri.removesuffix(f"{file.name}.ipynb") + name
            files.append(File.generated(config, beside, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to notebooks, as they are written for GitHub and Jupyter, lead to their pages."""
    return markdown.replace(".ipynb)", ".md)")


@functools.cache  # `mkdocs serve` builds the site after each change of a page
def _run(notebook: str, name: str) -> Any:
    """Return a notebook with its outputs."""
    cells = nbformat.reads(notebook, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        # `!ptycho-fast` is the command of this environment, activated or not.
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
        client = NotebookClient(
            cells,
            timeout=600,
            startup_timeout=300,
            resources={"metadata": {"path": folder}},
            extra_arguments=["--log-level=ERROR"],
        )
        try:
            client.execute(env={**os.environ, "PATH": path, "IPYTHONDIR": folder})
        except CellExecutionError as error:
            message = f"{name} fails.\n{error}"
            raise PluginError(message) from error
    return cells


def _cells(notebook: Any, name: str, pictures: dict[str, bytes]) -> Iterator[str]:
    """Return the cells in Markdown, and add to the pictures those that they drew."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            yield cell.source
            continue
        yield _fenced(cell.source, "python")
        printed = ""
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{name}_{len(pictures) + 1}.png"
                pictures[picture] = base64.b64decode(data["image/png"])
                # A click shows it in full.
                yield f"[![Drawn by the code above]({picture})]({picture})"
            elif "text/html" in data:
                yield f'<div class="output">\n{data["text/html"]}\n</div>'
            else:
                printed += output.get("text") or data.get("text/plain", "") + "\n"
        printed = OVERWRITTEN.sub("", PLACE.sub("", printed)).strip("\n")
        if printed:
            yield _fenced(printed, "{.text .output}")


def _fenced(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"
