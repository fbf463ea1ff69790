"""What a command can do, its function can: every option of the one is a parameter of the other, or stands here with
the reason why not. An option or parameter added to one side alone fails."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

import sg3
from sg3.cli import COMMANDS
from sg3.train.recipes import known_options

FUNCTIONS = {"train": sg3.fit, "generate": sg3.generate, "metrics": sg3.evaluate, "export": sg3.export,
             "push": sg3.push}  # fmt: skip
RENAMED = {
    "generate": {"class": "class_idx", "no_graphs": "graphs"},
    "metrics": {"no_graphs": "graphs"},
    "export": {"output": "path"},
}
WRITES = "the function returns arrays, which the caller lays out and writes"
ONLY_OPTIONS = {
    "train": {
        "continue": "Run.continue_training",
        "dry_run": "prints what is printed nowhere else",
        "list_presets": "prints; sg3.train.recipes.presets() is the list",
    },
    "generate": {"outdir": WRITES, "grid": WRITES, "captions": WRITES, "scale": WRITES},
    "metrics": {
        "all": "for path in run.snapshots: sg3.evaluate(path)",
        "plot": "run.metrics() has the curves as arrays",
        "json": "on_result gets the lines",
    },
    "export": {},
    "push": {},
}
ONLY_PARAMETERS = {
    "train": {"on_tick": "callback", "on_snapshot": "callback"},
    "generate": {},
    "metrics": {"on_result": "callback"},
    "export": {"report": "callback"},
    "push": {"report": "callback"},
}
DIFFERENT_DEFAULTS: dict[str, dict[str, tuple[object, object]]] = {
    "generate": {"translate": ("0,0", (0.0, 0.0))},  # as one types it
    "metrics": {"metrics": (None, "fid50k_full"), "gpus": (None, 1)},  # the command comes to the same by itself
}
WITHOUT_A_FUNCTION = {
    "info": "sg3.open_run, sg3.load", "convert": "sg3.load and sg3.save", "pull": "sg3.load",
    **dict.fromkeys(("video", "equivariance-video", "style-mix", "project", "directions", "spectra", "ema", "dataset"),
                    "the modules of sg3.tools and sg3.data, which are not promised to stay"),
    **dict.fromkeys(("view", "list", "tune", "doctor", "completion"), "for people at a terminal"),
}  # fmt: skip


def test_every_command_has_a_function_or_a_reason() -> None:
    assert set(FUNCTIONS) | set(WITHOUT_A_FUNCTION) == set(COMMANDS)


@pytest.mark.parametrize("command", FUNCTIONS)
def test_options_and_parameters_are_the_same(command: str) -> None:
    params = import_module(COMMANDS[command][0]).command.params
    longest = [max(param.opts, key=len) if len(param.opts[0]) == 2 else param.opts[0] for param in params]
    options = {name.lstrip("-").replace("-", "_") for name in longest}
    renamed = RENAMED.get(command, {})
    assert set(renamed) | set(ONLY_OPTIONS[command]) <= options  # what these tables excuse is there
    parameters = set(inspect.signature(FUNCTIONS[command]).parameters)
    if command == "train":
        assert "options" in parameters
        parameters = (parameters - {"options"}) | set(known_options())
    expected = {renamed.get(name, name) for name in options - set(ONLY_OPTIONS[command])}
    assert expected == parameters - set(ONLY_PARAMETERS[command])
    assert set(ONLY_PARAMETERS[command]) <= parameters


@pytest.mark.parametrize("command", ["generate", "metrics", "export", "push"])
def test_defaults_are_the_same(command: str) -> None:
    params = import_module(COMMANDS[command][0]).command.params
    renamed = RENAMED.get(command, {})
    parameters = inspect.signature(FUNCTIONS[command]).parameters
    different = {}
    for param in params:
        name = param.opts[0].lstrip("-").replace("-", "_")
        own = parameters.get(renamed.get(name, name))
        if own is None or own.default is inspect.Parameter.empty:
            continue
        default = param.default if isinstance(param.default, (bool, int, float, str, tuple)) else None
        if name == "no_graphs":
            default = not default
        if default != own.default:
            different[name] = (default, own.default)
    assert different == DIFFERENT_DEFAULTS.get(command, {})


