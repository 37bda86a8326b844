"""Result rows of the cases, and how numbers are printed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NotRequired, TypedDict


class Row(TypedDict):
    """One line of a results table: the values of all rounds."""

    key: str
    title: str
    unit: str
    values: list[float]
    x: NotRequired[int]  # position on the x axis, where the row is a point of a curve
    reference: NotRequired[bool]  # the code under test cannot change this value: its spread is machine noise


class Skipped(Exception):
    """A case that cannot be measured on this machine, with the reason."""


def row(key: str, title: str, unit: str, values: Iterable[float], x: int | None = None, reference: bool = False) -> Row:
    result = Row(key=key, title=title, unit=unit, values=[round(value, 6) for value in values])
    if x is not None:
        result["x"] = x
    if reference:
        result["reference"] = True
    return result


def format_number(number: float) -> str:
    """Three significant digits, or all digits before the decimal point."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"
