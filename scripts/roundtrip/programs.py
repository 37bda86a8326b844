"""Installs the programs in pinned versions, and converts files with them."""

import functools
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from services import InstallError, install_debian_package, install_tools
from services.paths import tools_dir

HERE = Path(__file__).resolve().parent
NPM_PACKAGES = ["exceljs@4.4.0", "xlsx@0.18.5"]
TIMEOUT = 300
# comma, quotes around texts, UTF-8, from the first line
CSV_INPUT = "CSV:44,34,76,1"
# as above; texts are quoted, and cells are written as they are shown
CSV_OUTPUT = "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,true,true,false"

Converter = Callable[[Path, Path], None]


class Unavailable(Exception):
    """A program could not be installed; the message contains the reason."""


def converter(program: str) -> Converter:
    """Returns the function that loads a file with a program and saves it as another one. Raises `Unavailable`."""
    if program in ("openpyxl", "pandas"):
        return python_converter(program)
    if program in ("sheetjs", "exceljs"):
        return node_converter(program)
    return libreoffice_converter()


def run(*command: str | Path, **environment: str) -> None:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=TIMEOUT, errors="replace"
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {(done.stdout + done.stderr)[-1000:]}")


def python_converter(library: str) -> Converter:
    try:
        binaries = install_tools("roundtrip")
    except InstallError as error:
        raise Unavailable(str(error)) from error
    return lambda source, target: run(binaries / "python", HERE / f"copy_{library}.py", source, target)


@functools.cache
def install_npm_packages() -> Path:
    """Installs the packages into a private directory and returns their directory. Raises `Unavailable`."""
    if not shutil.which("npm"):
        raise Unavailable("npm is missing")
    directory = tools_dir() / "roundtrip-npm"
    pins, marker = "\n".join(NPM_PACKAGES), directory / "pins"
    if not marker.exists() or marker.read_text() != pins:
        directory.mkdir(parents=True, exist_ok=True)
        options = ["--prefix", str(directory), "--ignore-scripts", "--no-audit", "--no-fund", "--save-exact"]
        done = subprocess.run(["npm", "install", *options, *NPM_PACKAGES], capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"npm could not install {', '.join(NPM_PACKAGES)}: {done.stderr.strip()[-300:]}")
        marker.write_text(pins)
    return directory / "node_modules"


def node_converter(library: str) -> Converter:
    modules = str(install_npm_packages())
    return lambda source, target: run("node", HERE / "copy.cjs", library, source, target, NODE_PATH=modules)


@functools.cache
def find_or_install_libreoffice() -> str:
    if not shutil.which("soffice"):
        install_debian_package("libreoffice-calc")
    found = shutil.which("soffice")
    if not found:
        raise Unavailable("LibreOffice is missing, and Debian's package libreoffice-calc cannot be installed")
    return found


def libreoffice_converter() -> Converter:
    soffice = find_or_install_libreoffice()

    def convert(source: Path, target: Path) -> None:
        # a profile of its own: a running LibreOffice would take the request over
        profile = f"-env:UserInstallation=file://{target.parent}/profile"
        output = CSV_OUTPUT if target.suffix == ".csv" else target.suffix[1:]
        reading = [f"--infilter={CSV_INPUT}"] if source.suffix == ".csv" else []
        run(soffice, profile, "--headless", *reading, "--convert-to", output, "--outdir", target.parent, source)
        if not target.exists():
            raise RuntimeError(f"LibreOffice wrote no {target.name}")

    return convert
