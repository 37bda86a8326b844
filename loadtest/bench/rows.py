"""What a case gives back, and how a figure is shown."""


def row(key, what, unit, values, x=None, reference=False, **more):
    """One line of a table: the values of its rounds. `x` where it is a point of a curve; `reference` where only the machine could make it vary."""
    return {"key": key, "what": what, "unit": unit, "values": [round(value, 6) for value in values], **({"x": x} if x is not None else {}),
            **({"reference": True} if reference else {}), **more}


class LeftOut(Exception):
    """A case that cannot be measured here, and why."""


def show(number):
    """Three digits, or all before the point."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"
