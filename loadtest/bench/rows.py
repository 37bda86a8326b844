"""What a case gives back."""


def row(key, what, unit, values, x=None, reference=False, **more):
    """One line of a table: the values of its rounds. `x` where it is a point of a curve; `reference` where only the machine could make it vary."""
    return {"key": key, "what": what, "unit": unit, "values": [round(value, 6) for value in values], **({"x": x} if x is not None else {}),
            **({"reference": True} if reference else {}), **more}
