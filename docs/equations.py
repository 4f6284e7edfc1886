"""Turn the equations of a page into MathML while the site is built (a hook of mkdocs).

The equations are written in TeX between dollar signs, which GitHub renders too. MathML needs no
script in the reader's browser, and the font it looks best in is copied into the site, so that
nothing is loaded from elsewhere.
"""

from __future__ import annotations

import html
import re
from importlib.resources import files as package_files
from typing import TYPE_CHECKING, Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

FONT = "fonts/STIXTwoMath-Regular.ttf"
EQUATION = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the font, which comes with ``ziamath``, to the files of the site."""
    path = package_files("ziamath") / FONT
    files.append(File.generated(config, FONT, content=path.read_bytes()))
    return files


def on_page_content(content: str, **_: Any) -> str:
    """Convert what the extension ``pymdownx.arithmatex`` has marked as an equation."""
    return EQUATION.sub(_as_mathml, content)


def _as_mathml(found: re.Match[str]) -> str:
    tex = html.unescape(found["tex"])
    display = "block" if found["tag"] == "div" else "inline"
    mathml = convert(tex, display=display)
    if "\\" in mathml or "&amp;" in mathml or "&#x00026;" in mathml:
        message = f"latex2mathml does not know all of this equation: {tex}"
        raise PluginError(message)
    return f'<div class="equation">{mathml}</div>' if display == "block" else mathml
