"""What a picture shows: one flat record, the same as JSON, in a query and in the page's address.

    State.read({"seed": 3, "trunc": 0.7})         # JSON
    State.read({"seed": "3", "trunc": "0.7"})     # ?seed=3&trunc=0.7

Every value is checked here and nowhere else; what depends on the network (its classes, its layers) is checked where it
is known. Fields are declared once: `SETTINGS` and the OpenAPI description follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Self, get_args, get_origin, get_type_hints

from sg3 import limits
from sg3.errors import UsageError
from sg3.terminal import printable
from sg3.viewer.settings import Choice, Indices, Pair, Real, Setting, Switch, Text, Whole

SEED = Whole(0, 2**32 - 1)
CLASS = Whole(0, limits.FEATURES - 1)
MOST_WS = 2 * limits.LAYERS + 2


@dataclass(frozen=True)
class State:
    """Everything that a picture depends on. The defaults are those of `sg3 generate --seeds=0`."""

    network: Annotated[str, Setting(Text(300), "Name of a network from /api/networks; the first one if empty.")] = ""
    seed: Annotated[int, Setting(SEED, "Seed of the latent.")] = 0
    x: Annotated[float, Setting(Real(-1e6, 1e6), "Position on the plane of seeds, from `seed` on: to the right lie "
                                "the next seeds, between them blends of four corners.")] = 0.0
    y: Annotated[float, Setting(Real(-1e6, 1e6), "The same downwards, where each step is a hundred seeds.")] = 0.0
    class_idx: Annotated[int | None, Setting(CLASS, "Class of a conditional network.", "class")] = None
    class_b: Annotated[int | None, Setting(CLASS, "A second class, to blend with the first.")] = None
    class_mix: Annotated[float, Setting(Real(0, 1), "How much of the second class.")] = 0.0
    trunc: Annotated[float, Setting(Real(-4, 4), "Truncation psi: 0 is the mean picture, 1 the full variety.")] = 1.0
    cutoff: Annotated[int | None, Setting(Whole(0, MOST_WS), "How many layers are truncated, all if left out.")] = None
    noise_mode: Annotated[str, Setting(Choice(("const", "random", "none")), "Noise of StyleGAN2 and FastGAN.")] = (
        "const")  # fmt: skip
    noise_seed: Annotated[int, Setting(SEED, "Seed of random noise.")] = 0
    noise_strength: Annotated[float, Setting(Real(0, 10), "Factor on StyleGAN2's noise.")] = 1.0
    mix_seed: Annotated[int | None, Setting(SEED, "Seed whose styles go to the layers of mix_layers.")] = None
    mix_layers: Annotated[tuple[int, ...], Setting(Indices(MOST_WS), "Layers, by number, that take mix_seed.")] = ()
    translate: Annotated[tuple[float, float], Setting(Pair(-10, 10), "Move the picture by these fractions of its size "
                                                      "(StyleGAN3).")] = (0.0, 0.0)
    rotate: Annotated[float, Setting(Real(-3600, 3600), "Rotate the picture, in degrees (StyleGAN3).")] = 0.0
    scale: Annotated[float, Setting(Real(0.1, 10), "Enlarge the picture (StyleGAN3).")] = 1.0
    untransform: Annotated[bool, Setting(Switch(), "Warp the moved picture back, to compare.")] = False
    fp32: Annotated[bool, Setting(Switch(), "Run all layers in 32 bits.")] = False

    @classmethod
    def read(cls, given: Mapping[str, object]) -> Self:
        """From JSON or a query; what is left out, or null, has its default. Raises UsageError, naming the setting."""
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name not in SETTINGS:
                known = ", ".join(SETTINGS)
                raise UsageError(f"{printable(name, 40)}: there is no such setting; choose from {known}")
            field, setting = SETTINGS[name]
            if value is None or value == "":
                continue
            try:
                values[field] = setting.kind.read(value)
            except ValueError as error:
                raise UsageError(f"{name}={printable(value, 40)}: {error}") from None
        return cls(**values)

    def plain(self) -> dict[str, Any]:
        """As JSON, without what has its default."""
        found = {}
        for name, (field, _) in SETTINGS.items():
            value = getattr(self, field)
            if value != DEFAULTS[field]:
                found[name] = list(value) if isinstance(value, tuple) else value
        return found


def _settings() -> dict[str, tuple[str, Setting]]:
    found = {}
    for field, hint in get_type_hints(State, include_extras=True).items():
        assert get_origin(hint) is Annotated
        setting = get_args(hint)[1]
        found[setting.name or field] = (field, setting)
    return found


SETTINGS = _settings()  # name outside of Python -> (field, setting)
DEFAULTS = {field.name: field.default for field in fields(State)}


def schema() -> dict[str, Any]:
    """JSON schema of a state."""
    properties = {}
    for name, (field, setting) in SETTINGS.items():
        default = DEFAULTS[field]
        shown = {} if default is None else {"default": list(default) if isinstance(default, tuple) else default}
        properties[name] = {**setting.kind.schema(), "description": setting.about, **shown}
    return {"type": "object", "properties": properties, "additionalProperties": False}
