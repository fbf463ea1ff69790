"""What a picture shows, as JSON, as text, and what is refused."""

from __future__ import annotations

import json

import pytest

from sg3.errors import UsageError
from sg3.viewer.state import SETTINGS, State, schema

FULL = {
    "network": "a.pkl", "seed": 7, "x": 0.25, "y": -3.5, "class": 2, "class_b": 3, "class_mix": 0.5, "trunc": 0.7,
    "cutoff": 4, "noise_mode": "random", "noise_seed": 9, "noise_strength": 2.0, "mix_seed": 1000,
    "mix_layers": [0, 1, 2, 6], "translate": [0.125, -0.25], "rotate": 30.0, "scale": 1.5, "untransform": True,
    "fp32": True,
}  # fmt: skip


def test_json_and_text_say_the_same() -> None:
    text = {name: str(value).lower() for name, value in FULL.items()}
    text |= {"mix_layers": "0-2,6", "translate": "0.125,-0.25"}
    assert State.read(FULL) == State.read(text)
    assert State.read(FULL).plain() == FULL
    assert set(FULL) <= set(SETTINGS)


def test_what_is_left_out_has_its_default() -> None:
    assert State.read({}) == State() == State.read({"seed": None, "cutoff": ""})
    assert State().plain() == {}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sed": 1}, "sed: there is no such setting; choose from network, seed"),
        ({"seed": -1}, "seed=-1: expected a whole number, 0 to 4294967295"),
        ({"seed": 1.5}, "seed=1.5: expected a whole number"),
        ({"seed": True}, "seed=True: expected a whole number"),
        ({"seed": "1e3"}, "seed=1e3: expected a whole number"),
        ({"seed": "9" * 5000}, "expected a whole number"),
        ({"seed": {}}, "expected a whole number"),
        ({"trunc": "nan"}, "trunc=nan: expected a number, -4 to 4"),
        ({"trunc": float("inf")}, "expected a number"),
        ({"trunc": 10**400}, "expected a number"),
        ({"translate": "1"}, "translate=1: expected two numbers"),
        ({"translate": [0, 1, 2]}, "expected two numbers"),
        ({"noise_mode": "loud"}, "noise_mode=loud: expected const, random or none"),
        ({"noise_mode": ["const"]}, "expected const, random or none"),
        ({"mix_layers": "3-99999999"}, "expected a whole number, 0 to"),
        ({"mix_layers": "-"}, "expected a whole number"),
        ({"mix_layers": ",".join("1" * 100)}, "expected numbers from 0"),
        ({"mix_layers": {"a": 1}}, "expected numbers from 0"),
        ({"untransform": "maybe"}, "untransform=maybe: expected true or false"),
        ({"network": "a\x1b[2J"}, "expected at most 300 visible characters"),
        ({"network": "a" * 301}, "expected at most 300 visible characters"),
        ({"network": 3}, "expected at most 300 visible characters"),
        ({"x": 1e7}, "x=10000000.0: expected a number, -1e+06 to 1e+06"),
    ],
)
def test_refused(given: dict, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        State.read(given)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_the_schema_describes_every_setting() -> None:
    described = json.loads(json.dumps(schema()))["properties"]
    assert list(described) == list(SETTINGS)
    assert described["seed"] == {
        "type": "integer", "minimum": 0, "maximum": 4294967295, "description": "Seed of the latent.", "default": 0,
    }  # fmt: skip
    assert all(entry["description"] for entry in described.values())
