"""The gate in front of the timing, the statistics after it, and the peers themselves."""

from __future__ import annotations

import dataclasses
import re
import sys
import types

import pytest
import torch

from bench import memory
from bench.measure import GateError, admit, gate, statistics
from bench.shapes import blocks, layers
from bench.training import LayerStep, Training, implementation
from bench.workloads import BiasAct, FilteredLrelu, ModulatedConv2d, Tensors, Upfirdn2d

CPU = torch.device("cpu")


def small(backward: bool = True) -> FilteredLrelu:
    return FilteredLrelu(layers("t-256")[0], 1, 2, backward, "cpu")


@pytest.mark.parametrize(
    "workload",
    [small(), small(False), FilteredLrelu(layers("r-256")[3], 1, 1, True, "cpu"),
     ModulatedConv2d(layers("t-256")[0], 2, 4, 3, True, "cpu"), BiasAct(blocks("t-256")[-1], 1, 3, True, "cpu"),
     Upfirdn2d("x", 1, 2, 9, (1.0, 3.0, 3.0, 1.0), False, 2, 1, (2, 1), True, False, "cpu")],
    ids=lambda workload: f"{workload.op}-{workload.mode}",
)  # fmt: skip
def test_peers_pass_the_gate(workload: FilteredLrelu) -> None:
    peers, facts = admit(workload, ["ref", "torch", "numba"], CPU)
    assert "ref" in peers
    assert set(facts) == {"ref", "torch", "numba"}
    for name in ("torch", "numba"):  # not every op has one, nor every machine Numba
        assert name in peers or re.search("does not exist|not installed", facts[name]["skipped"])


@pytest.mark.parametrize("what", [0, 1, 2])
def test_wrong_results_close_the_gate(what: int) -> None:
    peers, _ = admit(small(), ["ref"], CPU)
    ref, exact = peers["ref"].check(), small().exact(CPU)
    gate(ref, ref, exact, True, "ref")
    wrong = [t.clone() for t in ref]
    wrong[what].flatten()[0] += wrong[what].abs().max()
    with pytest.raises(GateError, match=rf"torch: .* {what}: error"):
        gate(wrong, ref, exact, True, "torch")
    wrong[what].flatten()[0] = float("nan")
    with pytest.raises(GateError, match="error nan"):
        gate(wrong, ref, exact, True, "torch")


def test_gate_wants_the_same_type() -> None:
    x = torch.ones(3)
    with pytest.raises(GateError, match="float16"):
        gate([x.half()], [x], None, False, "torch")


def test_a_wrong_peer_fails_the_case(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("somebodys_ops")
    module.filtered_lrelu = lambda x, *args, **kwargs: x[:, :, 1:-1, 1:-1] * 2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "somebodys_ops", module)
    monkeypatch.setenv("SG3_BENCH_ORIGINAL", "filtered_lrelu=somebodys_ops")
    with pytest.raises(GateError, match="original"):
        admit(small(False), ["ref", "original"], CPU)


@pytest.mark.parametrize("named", ["upfirdn2d=os", "filtered_lrelu=no_such_module", "filtered_lrelu=os"])
def test_the_original_is_never_required(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SG3_BENCH_ORIGINAL", named)
    peers, facts = admit(small(False), ["ref", "original"], CPU)
    assert list(peers) == ["ref"]
    assert facts["original"]["skipped"]


def test_out_of_memory_is_a_reason() -> None:
    @dataclasses.dataclass(frozen=True)
    class Large(FilteredLrelu):
        def call(self, op, inputs, constants):  # type: ignore[no-untyped-def]
            if op.keywords["impl"] == "ref":
                raise torch.OutOfMemoryError("too large")
            return super().call(op, inputs, constants)

    peers, facts = admit(Large(layers("t-256")[0], 1, 2, False, "cpu"), ["ref", "torch"], CPU)
    assert list(peers) == ["torch"]
    assert facts["ref"] == {"skipped": "out of memory"}
    assert facts["torch"]["unchecked"]


def test_statistics_compare_within_turns() -> None:
    # The machine slows down fourfold half way; the ratio does not.
    numbers = statistics({"ref": [0.002, 0.002, 0.008, 0.008], "torch": [0.001, 0.001, 0.004, 0.004]})
    assert numbers["torch"]["vs_ref"] == 2
    assert numbers["ref"] == {"median_ms": 5.0, "q1_ms": 2.0, "q3_ms": 8.0, "vs_ref": 1.0}


@pytest.mark.parametrize("part", ["G", "D", "Gboth", "Dmain", "Dreg"])
def test_network_workloads(part: str) -> None:
    work = Training(part, "stylegan3-t", 16, 128, 4, 2, "cpu")
    peers, _ = admit(work, ["ref", "torch"], CPU)
    before = peers["torch"].check()
    for peer in peers.values():
        peer.run()  # takes optimiser steps, which the next check must not see
    for a, b in zip(before, peers["torch"].check(), strict=True):
        assert torch.equal(a, b)


def test_layer_workload_has_all_channels() -> None:
    work = LayerStep(layers("t-256")[-1], 1, "cpu")
    result: Tensors = work.prepare(CPU)("torch").check()
    assert result[0].shape == (1, 3, 256, 256)


def test_implementation_leaves_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.delenv("SG3_IMPL", raising=False)
    with implementation("compile(ref)"):
        assert os.environ["SG3_IMPL"] == "ref"
    assert "SG3_IMPL" not in os.environ
    monkeypatch.setenv("SG3_IMPL", "torch")
    with pytest.raises(LookupError), implementation("original"):
        pass
    with implementation("ref"):
        assert os.environ["SG3_IMPL"] == "ref"
    assert os.environ["SG3_IMPL"] == "torch"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peak_memory() -> None:
    first, thrice = (FilteredLrelu(layers("t-256")[9], 1, channels, True, "cpu") for channels in (8, 24))
    assert 0 < 1.5 * memory.peak_mb(first, "ref", 1) < memory.peak_mb(thrice, "ref", 1)
