"""Chromium, ChromeDriver and axe-core, for the tests in a browser."""

import hashlib
import io
import shutil
import tarfile
import urllib.request
from pathlib import Path

from .output import log
from .packages import install_debian_package
from .paths import tools_dir
from .processes import exclusive_lock

AXE_VERSION = "4.14.1"
# of the package in the npm registry
AXE_SHA512 = (
    "1477dafa598d8d065f273d6af302aa203c02e83131707b7fa648cd41bd3d6b73"
    "4f8c22a0dab86ee6a6f64b8afbe804b214d36db85a2826965edfb3a0b9d546b5"
)
MAX_BYTES = 16 << 20


def install_browser() -> None:
    """Installs ChromeDriver when it is missing and can be installed."""
    if not shutil.which("chromedriver"):
        install_debian_package("chromium-driver")
    if not shutil.which("chromedriver"):
        log("chromedriver is missing and cannot be installed: the browser tests are SKIPPED")


def find_or_install_axe() -> Path | None:
    """Returns the script of axe-core, an accessibility checker, or `None` if it cannot be downloaded."""
    script = tools_dir() / f"axe-core-{AXE_VERSION}.js"
    with exclusive_lock(tools_dir() / "axe-core.lock"):
        if not script.exists():
            log(f"downloading axe-core {AXE_VERSION} from the npm registry")
            try:
                text = download_axe()
            except (OSError, ValueError, KeyError, tarfile.TarError) as error:
                log(f"axe-core cannot be downloaded: the test of accessibility is SKIPPED: {error}")
                return None
            partial = script.with_suffix(".part")
            partial.write_bytes(text)
            partial.rename(script)
    return script


def download_axe() -> bytes:
    url = f"https://registry.npmjs.org/axe-core/-/axe-core-{AXE_VERSION}.tgz"
    with urllib.request.urlopen(url, timeout=60) as response:
        package: bytes = response.read(MAX_BYTES)
    digest = hashlib.sha512(package).hexdigest()
    if digest != AXE_SHA512:
        raise ValueError(f"the SHA-512 of the package is {digest}")
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        file = archive.extractfile("package/axe.min.js")
        if file is None:
            raise ValueError("axe.min.js is not a file")
        return file.read()
