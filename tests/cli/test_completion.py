"""The script that ``--print-completion`` prints, sourced by a shell, which then completes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ptycho_fast.cli import COMMANDS, main

if TYPE_CHECKING:
    from pathlib import Path

BASH = shutil.which("bash")
ZSH = shutil.which("zsh")
COMPLETE = """
source ./completion
# What bash calls when Tab is pressed is what the script has registered.
function=$(complete -p ptycho-fast | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
"$function" 2> errors
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", shell])
    assert ended.value.code == 0
    return capsys.readouterr().out


def completed(*words: str) -> list[str]:
    assert BASH is not None
    done = subprocess.run(
        [BASH, "--norc", "-c", COMPLETE, "ptycho-fast", "ptycho-fast", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_bash_completes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "completion").write_text(script("bash", capsys))
    (here / "scan.npz").write_text("")
    (here / "runs").mkdir()
    names = {module.__name__.rpartition(".")[2].replace("_", "-") for module in COMMANDS}
    assert set(completed("")) == names
    assert completed("rec") == ["reconstruct"]
    assert completed("reconstruct", "--unc") == ["--uncertainty"]
    assert completed("reconstruct", "sc") == ["scan.npz"]
    assert completed("train", "scan.npz", "sc") == ["scan.npz"]
    assert completed("reconstruct", "scan.npz", "--prior", "l") == ["learned"]
    assert set(completed("inspect", "scan.npz", "--unit", "")) == {"px", "m", "mm", "um", "nm"}
    # Where a folder is asked for, no file is proposed.
    assert completed("reconstruct", "scan.npz", "-o", "") == ["runs"]
    assert completed("infer", "r") == ["runs"]
    assert completed("infer", "runs", "s") == ["scan.npz"]
    assert completed("nonsense", "--") == completed("--")
    assert completed("convert", "scan.npz", "out", "--to", "n") == ["npz"]
    assert completed("example", "pty") == ["ptychodus", "ptypy"]


@pytest.mark.skipif(ZSH is None, reason="needs zsh")
def test_zsh_accepts_its_script(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "completion").write_text(script("zsh", capsys))
    assert ZSH is not None
    subprocess.run([ZSH, "-n", "completion"], check=True)


def test_zsh_has_a_script_with_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    text = script("zsh", capsys)
    assert text.startswith("#compdef ptycho-fast")
    for module in COMMANDS:
        name = module.__name__.rpartition(".")[2].replace("_", "-")
        assert re.search(rf"[\"' ]{name}[:)]", text), name
    assert "--uncertainty" in text


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", "cmd"])
    assert ended.value.code == 2
    assert "invalid choice: 'cmd'" in capsys.readouterr().err


def test_without_shtab_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", "bash"])
    assert ended.value.code == 2
    assert 'pip install "ptycho_fast[completion]"' in capsys.readouterr().err
