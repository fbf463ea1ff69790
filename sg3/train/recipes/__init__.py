"""The training systems: whatever lies in this package with a `recipe.py` that has a `RECIPE`.

A system is chosen by `cfg`. The command line, option files and presets know the options of all of them; once the system
is known, only its own are accepted.
"""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from sg3.errors import DataError, UsageError
from sg3.terminal import printable
from sg3.train.config import DatasetFacts, TrainConfig
from sg3.train.options import PANELS, Option, Options, check_value
from sg3.train.recipes.recipe import Preset, Recipe
from sg3.train.sinks import require_sinks

DEFAULT_CFG = "stylegan3-t"


def discover() -> tuple[Recipe, ...]:
    """Every system in this package, the default one first."""
    packages = [entry.name for entry in pkgutil.iter_modules(__path__) if entry.ispkg]
    recipes: list[Recipe] = [import_module(f"{__name__}.{name}.recipe").RECIPE for name in packages]
    return tuple(sorted(recipes, key=lambda recipe: (DEFAULT_CFG not in recipe.cfgs, recipe.name)))


def check_owners(recipes: Iterable[Recipe]) -> None:
    """Raises TypeError where two systems claim the same cfg, or the same name of a preset."""
    owners: dict[str, str] = {}
    for recipe in recipes:
        for claim in [*(f"--cfg={cfg}" for cfg in recipe.cfgs), *(f"--preset={name}" for name in recipe.presets)]:
            if claim in owners:
                raise TypeError(f"{claim}: claimed by {owners[claim]} and by {recipe.name}")
            owners[claim] = recipe.name


RECIPES = discover()
check_owners(RECIPES)


def recipe_of(cfg: str) -> Recipe:
    """The system that a --cfg means. Raises UsageError for one that does not exist."""
    for recipe in RECIPES:
        if cfg in recipe.cfgs:
            return recipe
    known = ", ".join(cfg for recipe in RECIPES for cfg in recipe.cfgs)
    raise UsageError(f"--cfg={cfg}: expected one of {known}")


def chosen_cfg(said: Mapping[str, Any]) -> str:
    """The cfg that these options mean."""
    cfg: str = said.get("cfg") or DEFAULT_CFG
    for recipe in RECIPES:
        if recipe.switch is not None and said.get(recipe.switch) and f"{cfg}-{recipe.switch}" in recipe.cfgs:
            return f"{cfg}-{recipe.switch}"
    return cfg


def presets() -> dict[str, Preset]:
    """The presets of all systems."""
    return {name: preset for recipe in RECIPES for name, preset in recipe.presets.items()}


def known_options() -> dict[str, Option]:
    """The options of all systems by name, panel by panel, with all their choices and with defaults in words (`rule`).

    Raises TypeError where two systems declare one name differently in more than that.
    """
    owners: dict[str, list[tuple[str, Option]]] = {}
    for recipe in RECIPES:
        for name, option in recipe.options.declared().items():
            owners.setdefault(name, []).append((recipe.name, option))
    merged = {name: _merge(declared) for name, declared in owners.items()}
    return dict(sorted(merged.items(), key=lambda item: PANELS.index(item[1].panel)))


def _merge(declared: list[tuple[str, Option]]) -> Option:
    (_, first), *others = declared
    choices = tuple(dict.fromkeys(choice for _, option in declared for choice in option.choices))
    defaults = [first.shown_default]
    if first.name != "cfg":  # whose default is that of the first system
        defaults += [f"{recipe}: {o.shown_default or 'none'}" for recipe, o in others if o.shown_default != defaults[0]]
    rule = "; ".join(filter(None, defaults))
    shown: dict[str, Any] = {"default": None, "by_cfg": {}, "rule": rule, "choices": choices}
    merged = dataclasses.replace(first, **shown)
    for recipe, option in others:
        if dataclasses.replace(option, **shown) != merged or bool(option.choices) != bool(choices):
            raise TypeError(f"{recipe}: declares {option.flag} in another way than {declared[0][0]}")
    return merged


def options_of(said: Mapping[str, Any], cfg: str | None = None) -> Options:
    """What was said, as the options of the system that `cfg` means, or else of the one that was said.

    Raises UsageError for names and values that do not exist, and for options of other systems.
    """
    if cfg is None:
        cfg = chosen_cfg(said)
        if cfg != (said.get("cfg") or DEFAULT_CFG):
            said = {**said, "cfg": cfg}
    recipe = recipe_of(cfg)
    known = known_options()
    problems = [unknown_option(name, known) for name in said if name not in known]
    problems += [f"{known[name].flag}: {owner}" for name, owner in foreign_options(cfg, said).items() if name in known]
    if problems:
        raise UsageError("; ".join(problems))
    return recipe.options(**said)


def unknown_option(name: str, known: Iterable[str]) -> str:
    """What to say of a name that no system has."""
    close = get_close_matches(name, known, n=1)
    return f"{name!r} is no option of sg3 train" + (f"; did you mean {close[0]!r}?" if close else "")


def foreign_options(cfg: str, names: Iterable[str]) -> dict[str, str]:
    """Which of these options belong to other systems than that of `cfg`, and to which."""
    mine = recipe_of(cfg).options.declared()
    foreign = {}
    for name in names:
        if name not in mine:
            owners = [owner for recipe in RECIPES if name in recipe.options.declared() for owner in recipe.cfgs]
            foreign[name] = f"belongs to {', '.join(owners)}, not to --cfg={cfg}"
    return foreign


def resolve(options: Options, dataset: DatasetFacts) -> TrainConfig:
    """Fill in the defaults of the system that these are the options of, and check that everything fits.

    Raises UsageError that lists every contradiction, DataError for images that the system cannot be trained on,
    MissingInputError for what --log-to needs.
    """
    cfg = options.cfg or options.declared()["cfg"].default
    config = recipe_of(cfg).config.resolve(options, dataset)
    problems = config.problems(options)
    if unusable := config.data_problems():  # the others may follow from it
        raise DataError("; ".join(unusable + problems))
    if problems:
        raise UsageError("; ".join(problems))
    require_sinks(config.log_to)
    return config


def read_config(data: Mapping[str, Any]) -> TrainConfig:
    """The inverse of `TrainConfig.to_dict`. Raises KeyError, TypeError or ValueError for what is no configuration."""
    for recipe in RECIPES:
        if data["cfg"] in recipe.cfgs:
            config = recipe.config.from_dict(data)
            for name, option in recipe.options.declared().items():
                value = getattr(config, name, None)
                is_said = value or option.default is not None or option.rule is not None  # 0 may stand for "not asked"
                if type(value) is option.kind and is_said:
                    try:
                        check_value(option, value)
                    except ValueError as error:
                        raise ValueError(f"{name} = {printable(repr(value))}: {error}") from None
            return config
    raise ValueError(f"it has no system {printable(repr(data['cfg']))}")
