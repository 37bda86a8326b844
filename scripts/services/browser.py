"""Chromium and ChromeDriver, for the test of the documentation page."""

import shutil

from .output import log
from .packages import install_debian_package


def install_browser() -> None:
    """Installs ChromeDriver when it is missing and can be installed."""
    if not shutil.which("chromedriver"):
        install_debian_package("chromium-driver")
    if not shutil.which("chromedriver"):
        log("chromedriver is missing and cannot be installed: the browser test is SKIPPED")
