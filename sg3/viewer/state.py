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
from sg3.viewer.settings import Choice, Indices, Pair, Real, Setting, Switch, Text, Whole, Words

SEED = Whole(0, 2**32 - 1)
CLASS = Whole(0, limits.FEATURES - 1)
MOST_WS = 2 * limits.LAYERS + 2
# Set, number, amount in degrees, and perhaps the layers: sefa.0:2.5 or pca.3:-1:0-6.
MOVE = r"(sefa|pca|[0-9a-f]{16})\.(\d{1,4}):(-?\d{1,4}(?:\.\d{1,6})?)(?::(\d{1,3})-(\d{1,3}))?"


@dataclass(frozen=True)
class State:
    """Everything that a picture depends on. The defaults are those of `sg3 generate --seeds=0`."""

    network: Annotated[str, Setting(Text(300), "Name of a network from /api/networks; the first one if empty.")] = ""
    seed: Annotated[int, Setting(SEED, "Seed of the latent.")] = 0
    x: Annotated[float, Setting(Real(-1e6, 1e6), "Position on the plane of seeds, from `seed` on: to the right lie "
                                "the next seeds, between them blends of four corners.")] = 0.0
    y: Annotated[float, Setting(Real(-1e6, 1e6), "The same downwards, where each step is a hundred seeds.")] = 0.0
    seed_b: Annotated[int | None, Setting(SEED, "A second seed, of class_b if that is set, to go towards in w.")] = None
    seed_mix: Annotated[float, Setting(Real(0, 1), "How far towards it.")] = 0.0
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
    latent: Annotated[str, Setting(Text(16), "Instead of a seed, a latent that the server keeps, by its name.")] = ""
    latent_b: Annotated[str, Setting(Text(16), "A second latent, to go towards in w instead of seed_b.")] = ""
    directions: Annotated[tuple[str, ...], Setting(Words(MOVE, "sefa.0:2.5 or pca.3:-1:0-6", 32), "Steps along "
        "directions of w: set (sefa, pca or a loaded one), number, degrees, and perhaps layers.")] = ()  # fmt: skip
    layer: Annotated[str, Setting(Text(100), "Show what this layer gives, not the picture.")] = ""
    layer_view: Annotated[str, Setting(Choice(("rgb", "sheet", "spectrum")), "Three channels as colours, a sheet of "
                          "channels, or a power spectrum.")] = "rgb"  # fmt: skip
    channel: Annotated[int, Setting(Whole(0, limits.FEATURES - 1), "First channel of the layer to show.")] = 0
    gain_db: Annotated[float, Setting(Real(-40, 40), "Gain of the layer's values, in decibels.")] = 0.0
    normalize: Annotated[bool, Setting(Switch(), "Scale the layer's values to their largest.")] = False
    kaiser: Annotated[float, Setting(Real(0, 50), "Beta of the spectrum's Kaiser window.")] = 8.0
    spectrum_db: Annotated[float, Setting(Real(0.1, 100), "Range of the spectrum, in decibels.")] = 50.0
    all_channels: Annotated[bool, Setting(Switch(), "Average the spectrum over all channels.")] = False
    compare: Annotated[str, Setting(Choice(("none", "split", "difference")), "Show a second network beside the first, "
                       "or the difference.")] = "none"  # fmt: skip
    network_b: Annotated[str, Setting(Text(300), "The second network.")] = ""
    split: Annotated[float, Setting(Real(0, 1), "Where the second network's part begins.")] = 0.5
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
