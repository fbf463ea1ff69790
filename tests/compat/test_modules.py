"""sg3's own dnnlib, torch_utils.misc and torch_utils.training_stats."""

from __future__ import annotations

import hashlib
import io
import math
import multiprocessing
import pickle
import sys
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sg3.compat.modules.dnnlib import util
from sg3.compat.modules.torch_utils import misc, training_stats

# ---- dnnlib


def test_easy_dict() -> None:
    entry = util.EasyDict(a=1)
    entry.b = 2
    assert entry == {"a": 1, "b": 2}
    del entry.a
    assert not hasattr(entry, "a")
    with pytest.raises(AttributeError):
        del entry.a
    again = pickle.loads(pickle.dumps(entry))
    assert type(again) is util.EasyDict
    assert again.b == 2


@pytest.mark.parametrize(("seconds", "long", "brief"), [
    (0.4, "0s", "0s"), (59.6, "1m 00s", "1m 00s"), (65, "1m 05s", "1m 05s"), (3723, "1h 02m 03s", "1h 02m"),
    (93785, "1d 02h 03m", "1d 02h"),
])  # fmt: skip
def test_times(seconds: float, long: str, brief: str) -> None:
    assert util.format_time(seconds) == long
    assert util.format_time_brief(seconds) == brief


def test_objects_by_name() -> None:
    assert util.get_obj_by_name("np.linalg.norm") is np.linalg.norm
    assert util.get_module_from_obj_name("torch.nn.Linear.forward") == (nn, "Linear.forward")
    assert util.construct_class_by_name(2, class_name="torch.nn.Linear", out_features=3).weight.shape == (3, 2)
    assert util.call_func_by_name([1, 2], func_name="math.prod", start=3) == 6
    for name in ("torch.nn.Absent", "absent_package.thing", "nothing"):
        with pytest.raises(ImportError, match=name):
            util.get_obj_by_name(name)


def test_a_module_that_cannot_be_imported_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_another.py").write_text("import absent_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="absent_dependency"):
        util.get_obj_by_name("needs_another.Thing")


def test_logger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with util.Logger(str(tmp_path / "log.txt")):
        print("one")
        print("two", file=sys.stderr)
    assert (sys.stdout, sys.stderr) == before
    assert (tmp_path / "log.txt").read_text() == "one\ntwo\n"
    print("three")
    assert capsys.readouterr().out == "one\ntwo\nthree\n"
    with util.Logger(str(tmp_path / "log.txt"), file_mode="a"):
        print("four")
    assert (tmp_path / "log.txt").read_text() == "one\ntwo\nfour\n"


def test_folders(tmp_path: Path) -> None:
    for name in ("a.py", "b.pyc", "sub/c.py", "skip/d.py"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(name)
    found = util.list_dir_recursively_with_ignore(str(tmp_path / "root"), ignores=["*.pyc", "skip"])
    assert [relative for _, relative in found] == ["a.py", "sub/c.py"]
    based = util.list_dir_recursively_with_ignore(str(tmp_path / "root" / "sub"), add_base_to_relative=True)
    assert [relative for _, relative in based] == ["sub/c.py"]
    util.copy_files_and_create_dirs([(path, str(tmp_path / "copy" / relative)) for path, relative in found])
    assert (tmp_path / "copy" / "sub" / "c.py").read_text() == "sub/c.py"


def test_small_things(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert util.tuple_product((2, 3, 4)) == 24
    assert util.tuple_product(()) == 1
    assert util.is_url("https://example.org/a.pkl")
    assert not util.is_url("https:/a.pkl")
    assert not util.is_url(3)
    assert not util.is_url("file:///a.pkl")
    assert util.is_url("file:///a.pkl", allow_file_urls=True)
    monkeypatch.setattr("sys.stdin", io.StringIO("perhaps\nYes\n"))
    assert util.ask_yes_no("Sure?")
    monkeypatch.setenv("DNNLIB_CACHE_DIR", "/cache")
    assert util.make_cache_dir_path("a", "b") == "/cache/a/b"
    util.set_cache_dir("/other")
    assert util.make_cache_dir_path() == "/other"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "net.pkl").write_bytes(b"\x80\x04N.")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/net.pkl"
        http.shutdown()


def test_open_url(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SG3_CACHE", str(tmp_path / "sg3-cache"))
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "dnnlib-cache"))
    local = tmp_path / "served" / "net.pkl"
    for source in (server, str(local), local.as_uri()):
        with util.open_url(source) as file:
            assert file.read() == b"\x80\x04N."
    assert util.open_url(str(local), return_filename=True) == str(local)
    given = Path(util.open_url(server, cache_dir=str(tmp_path / "given"), return_filename=True))
    assert given.parent == tmp_path / "given"
    local.unlink()
    assert given.read_bytes() == b"\x80\x04N."
    with util.open_url(server) as file:  # from the cache
        assert file.read() == b"\x80\x04N."
    # What the original's tools have downloaded is used.
    downloads = tmp_path / "dnnlib-cache" / "downloads"
    downloads.mkdir(parents=True)
    address = "http://127.0.0.1:1/other.pkl"
    (downloads / f"{hashlib.md5(address.encode()).hexdigest()}_other.pkl").write_bytes(b"theirs")
    with util.open_url(address) as file:
        assert file.read() == b"theirs"


# ---- torch_utils.misc


def test_constant() -> None:
    a = misc.constant([1, 2], dtype=torch.float64)
    assert a.dtype == torch.float64
    assert a.tolist() == [1, 2]
    assert misc.constant([1, 2], dtype=torch.float64) is a
    assert misc.constant(np.array([1, 2]), dtype=torch.float32) is not a
    assert misc.constant(3, shape=(2, 2)).tolist() == [[3, 3], [3, 3]]
    assert misc.constant(1).dtype == torch.get_default_dtype()


def test_shapes_and_numbers() -> None:
    misc.assert_shape(torch.zeros(2, 3), [None, 3])
    for shape in ([2], [2, 4], [None, None, None]):
        with pytest.raises(AssertionError, match=r"shape \[2, 3\], expected"):
            misc.assert_shape(torch.zeros(2, 3), shape)
    assert misc.nan_to_num(torch.tensor([math.nan, math.inf]), posinf=5).tolist() == [0, 5]
    misc.symbolic_assert(True, "fine")
    with pytest.raises(AssertionError, match="wrong"):
        misc.symbolic_assert(False, "wrong")


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated")
def test_tracing_and_profiling() -> None:
    def halve(x: torch.Tensor) -> torch.Tensor:
        with misc.suppress_tracer_warnings():
            return x[: int(x.shape[0]) // 2] if bool(x.sum() > -1) else x

    with pytest.warns(torch.jit.TracerWarning):
        torch.jit.trace(lambda x: x if bool(x.sum() > 0) else -x, torch.ones(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error", category=torch.jit.TracerWarning)
        torch.jit.trace(halve, torch.ones(4), check_trace=False)
    with torch.autograd.profiler.profile() as profile:
        assert misc.profiled_function(halve)(torch.ones(4)).shape == (2,)
    assert "halve" in {event.name for event in profile.function_events}


def test_infinite_sampler() -> None:
    dataset = range(10)
    passes = list(islice(misc.InfiniteSampler(dataset, seed=3), 40))
    assert sorted(passes[:10]) != passes[:10]
    assert min(passes) == 0
    assert max(passes) == 9
    assert list(islice(misc.InfiniteSampler(dataset, seed=3), 40)) == passes
    assert list(islice(misc.InfiniteSampler(dataset, seed=4), 40)) != passes
    ranks = [list(islice(misc.InfiniteSampler(dataset, rank=r, num_replicas=3, seed=3), 13)) for r in range(3)]
    assert [index for step in zip(*ranks, strict=True) for index in step] == passes[:39]
    assert list(islice(misc.InfiniteSampler(dataset, shuffle=False), 12)) == [*range(10), 0, 1]
    counts = np.bincount(list(islice(misc.InfiniteSampler(dataset, seed=1), 10_000)))
    assert counts.min() > 800, "every image comes about equally often"
    with pytest.raises(ValueError, match="rank 2 of 2"):
        misc.InfiniteSampler(dataset, rank=2, num_replicas=2)


def net(width: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.ReLU())


def test_parameters_and_buffers() -> None:
    torch.manual_seed(0)
    source, target = net(), net()
    names = [name for name, _ in misc.named_params_and_buffers(source)]
    assert names == ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var",
                     "1.num_batches_tracked"]  # fmt: skip
    assert len(misc.params_and_buffers(source)) == len(names)
    source(torch.randn(4, 2))
    target[0].weight.requires_grad_(False)
    misc.copy_params_and_buffers(source, target, require_all=True)
    for a, b in zip(misc.params_and_buffers(source), misc.params_and_buffers(target), strict=True):
        assert torch.equal(a, b)
    assert not target[0].weight.requires_grad
    misc.copy_params_and_buffers(source[:1], target)  # the rest stays
    with pytest.raises(KeyError, match=r"1\.weight: is not in Sequential"):
        misc.copy_params_and_buffers(source[:1], target, require_all=True)
    with pytest.raises(RuntimeError, match="size"):
        misc.copy_params_and_buffers(net(4), target)
    with misc.ddp_sync(target, sync=False):
        pass


def test_module_summary(capsys: pytest.CaptureFixture[str]) -> None:
    module = net()
    outputs = misc.print_module_summary(module, [torch.zeros(4, 2)])
    assert outputs.shape == (4, 3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["module", "parameters", "buffers", "output", "shape", "dtype"]
    assert lines[1].split() == ["0", "9", "-", "[4,", "3]", "float32"]
    assert lines[2].split() == ["1", "6", "7", "[4,", "3]", "float32"]
    assert lines[-1].split()[:3] == ["total", "15", "7"]
    assert not module._forward_hooks
    assert not any(line.startswith("<top-level>") for line in lines)  # its output is the last layer's
    misc.print_module_summary(module, [torch.zeros(4, 2)], max_nesting=0, skip_redundant=False)
    assert len(capsys.readouterr().out.splitlines()) == 3  # head, <top-level>, total


# ---- torch_utils.training_stats


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_stats, "_process", training_stats._Process())


def test_statistics(fresh: None) -> None:
    training_stats.report("Loss/early", 100.0)
    collector = training_stats.Collector(regex="Loss/.*")
    values = torch.tensor([[1.0, 2.0], [3.0, 6.0]], requires_grad=True)
    assert training_stats.report("Loss/a", values) is values
    training_stats.report("Loss/a", 8)
    training_stats.report("Loss/none", [])
    training_stats.report("Other", 1.0)
    collector.update()
    assert sorted(collector.names()) == ["Loss/a", "Loss/early", "Loss/none"]
    assert (collector.num("Loss/a"), collector.mean("Loss/a"), collector["Loss/a"]) == (5, 4.0, 4.0)
    assert collector.std("Loss/a") == pytest.approx(np.std([1, 2, 3, 6, 8]))
    assert collector.num("Loss/early") == 0, "reported before the collector was made"
    assert math.isnan(collector.mean("Loss/none"))
    assert collector.as_dict()["Loss/a"].num == 5
    collector.update()
    assert collector.mean("Loss/a") == 4.0, "nothing new: the previous average stays"
    forgetful = training_stats.Collector(keep_previous=False)
    training_stats.report("Loss/a", 1.0)
    forgetful.update()
    collector.update()
    assert collector.mean("Loss/a") == forgetful.mean("Loss/a") == 1.0
    assert collector.std("Loss/a") == 0
    forgetful.update()
    assert math.isnan(forgetful.mean("Loss/a"))


def test_report0(fresh: None) -> None:
    training_stats.init_multiprocessing(rank=1, sync_device=None)
    collector = training_stats.Collector()
    assert training_stats.report0("a", 3.0) == 3.0
    collector.update()
    assert collector.names() == ["a"]
    assert collector.num("a") == 0


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    training_stats.init_multiprocessing(rank, torch.device("cpu"))
    collector = training_stats.Collector()
    for name in ("b", "a") if rank else ("a", "b"):  # in whatever order
        training_stats.report(name, torch.full((rank + 1,), float(rank)))
    training_stats.report0("c", rank + 5.0)
    collector.update()
    module = net()
    misc.copy_params_and_buffers(_agreed(), module)
    misc.check_ddp_consistency(module)
    differs = ""
    module[1].num_batches_tracked.fill_(rank)  # the last one: a rank that stops earlier leaves the others waiting
    try:
        misc.check_ddp_consistency(module)
    except AssertionError as error:
        differs = str(error)
    torch.distributed.barrier()
    misc.check_ddp_consistency(module, ignore_regex=r".*\.num_batches_tracked")
    text = f"{collector.num('a')} {collector.mean('a'):.3f} {collector['b']:.3f} {collector['c']} {differs}"
    Path(folder, str(rank)).write_text(text)


def _agreed() -> nn.Module:
    torch.manual_seed(0)
    return net()


@pytest.mark.slow
def test_statistics_and_consistency_over_two_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=_rank, args=(rank, str(tmp_path)), daemon=True) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(120)
        assert rank.exitcode == 0
    same = "3 0.667 0.667 5.0 "
    assert (tmp_path / "0").read_text() == same
    assert (tmp_path / "1").read_text() == same + "Sequential.1.num_batches_tracked differs from rank 0's"
