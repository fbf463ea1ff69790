"""`python -m sg3.compat`: scripts run as Python would run them, and their children too."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compat.conftest import LAYOUT, Run
from tests.conftest import ROOT

PYTHON = ()  # runs the script without sg3.compat


# ---- a checkout of the official layout


def check_training(outdir: Path, ranks: int) -> None:
    results = [json.loads((outdir / f"rank{rank}.json").read_text()) for rank in range(ranks)]
    assert "Launching" in (outdir / "log.txt").read_text()
    for result in results:
        assert result["in_workers"], "a DataLoader worker did not get sg3's ops"
        assert result["same"], "the pickled copy of the generator differs"
        assert result["ppl"] == 49.5
        assert result["fid"] > 0
        assert result["stats"]["Loss/G"] > 0
        assert result["stats"]["Loss/r1"] > 0
        assert result["weights"] == results[0]["weights"], "ranks have drifted apart"


def test_training_script_with_spawned_processes(run: Run, tmp_path: Path) -> None:
    """A spawned training process, away from the folder that sg3 lies in, and its DataLoader worker; the checkout's own
    ops would raise."""
    done = run(LAYOUT / "train_like.py", "--outdir", tmp_path, "--gpus", 1, "--workers", "fork")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("sg3.compat: torch_utils.ops -> sg3.kernels") == 1
    check_training(tmp_path, ranks=1)


@pytest.mark.slow
def test_training_script_on_two_ranks(run: Run, tmp_path: Path) -> None:
    """Two spawned processes, each with a DataLoader worker that it spawns."""
    done = run(LAYOUT / "train_like.py", "--outdir", tmp_path, "--gpus", 2)
    assert done.returncode == 0, done.stderr
    check_training(tmp_path, ranks=2)


@pytest.mark.slow
@pytest.mark.parametrize(("words", "complaint"), [
    (PYTHON, "pkg_resources|tripwire"),
    (("-m", "sg3.compat", "--no-patches"), "pkg_resources|distutils|Sampler|betas"),
    (("-m", "sg3.compat", "--no-ops"), "tripwire"),
])  # fmt: skip
def test_training_script_needs_each_part(words: tuple[str, ...], complaint: str, run: Run, tmp_path: Path) -> None:
    """The test above tests something: without sg3.compat, its patches or its ops the script fails."""
    import re

    done = run(LAYOUT / "train_like.py", "--outdir", tmp_path, "--gpus", 1, python=words)
    assert done.returncode == 1
    assert re.search(complaint, done.stderr)


@pytest.mark.slow
def test_under_torchs_launcher(run: Run, tmp_path: Path) -> None:
    """torchrun -m sg3.compat SCRIPT: each rank gets the ops, one says so."""
    script = tmp_path / "ranks.py"
    script.write_text(
        "import os, sys\n"
        "from torch_utils.ops import fma\n"
        "import torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "x = fma.fma(*(__import__('torch').ones(3) * n for n in (2, 3, dist.get_rank())))\n"
        "dist.all_reduce(x)\n"
        "open(f'{os.path.dirname(__file__)}/{dist.get_rank()}', 'w').write(f'{x.tolist()} {sys.argv[1:]}')\n"
    )
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "sg3.compat")
    done = run(script, "--x", python=launcher, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["[13.0, 13.0, 13.0] ['--x']"] * 2
    assert done.stderr.count("sg3.compat: torch_utils.ops") == 1


# ---- as Python does


def outputs(run: Run, script: Path, *args: object) -> list[subprocess.CompletedProcess[str]]:
    """Of plain Python and of sg3.compat."""
    return [run(script, *args, python=PYTHON), run(script, *args)]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "a script.py"


def test_what_a_script_sees(script: Path, run: Run) -> None:
    (script.parent / "beside.py").write_text("x = 1\n")
    script.write_text(
        '"""Its docstring."""\n'
        "import os, sys, pickle, beside\n"
        "class Thing: pass\n"
        "main = sys.modules['__main__']\n"
        "print(sys.argv, sys.path[0], __file__, __name__, __spec__, __package__, __doc__, os.getcwd())\n"
        "print(main.__dict__ is globals(), pickle.loads(pickle.dumps(Thing())).__class__ is Thing)\n"
        "print(type(__loader__).__name__, 'sg3' in globals(), [n for n in sorted(globals()) if n[0] != '_'])\n"
        "import atexit; atexit.register(lambda: print('at exit', sys.modules['__main__'].Thing is Thing))\n"
        "print('error', file=sys.stderr)\n"
    )
    plain, ours = outputs(run, script, "-h", "--help", "-m", "x y", "--modules=1")
    assert (ours.stdout, ours.stderr, ours.returncode) == (plain.stdout, plain.stderr, plain.returncode)
    assert "Its docstring." in plain.stdout


@pytest.mark.parametrize(("body", "code"), [
    ("sys.exit(7)", 7), ("sys.exit('message')", 1), ("sys.exit()", 0), ("raise SystemExit(3)", 3),
    ("import os; os._exit(9)", 9), ("raise KeyError('k')", 1), ("import os; os.kill(os.getpid(), 15)", -15),
    ("raise KeyboardInterrupt", -signal.SIGINT),
])  # fmt: skip
def test_exit_codes_and_tracebacks(body: str, code: int, script: Path, run: Run) -> None:
    script.write_text(f"import sys\ndef inner():\n    {body}\ninner()\n")
    plain, ours = outputs(run, script)
    assert plain.returncode == code
    assert (ours.returncode, ours.stdout, ours.stderr) == (code, plain.stdout, plain.stderr)


def test_syntax_error(script: Path, run: Run) -> None:
    script.write_text("x = 1\nif x\n")
    plain, ours = outputs(run, script)
    assert (ours.returncode, ours.stderr) == (1, plain.stderr)


def test_a_scripts_own_excepthook(script: Path, run: Run) -> None:
    script.write_text("import sys\nsys.excepthook = lambda *e: print('hook', e[0].__name__)\n1 / 0\n")
    plain, ours = outputs(run, script)
    assert ours.stdout == plain.stdout == "hook ZeroDivisionError\n"
    assert ours.returncode == 1


def test_module_instead_of_script(script: Path, run: Run, tmp_path: Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "tool.py").write_text(
        "import sys, collections\nprint(sys.argv, __name__, __spec__.name, collections.Mapping)\nsys.exit(4)\n"
    )
    done = run("-m", "pack.tool", "--x", PYTHONPATH=str(tmp_path))
    assert done.stdout.startswith(f"[{str(package / 'tool.py')!r}, '--x'] __main__ pack.tool <class")
    assert done.returncode == 4


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_children_of_multiprocessing(method: str, script: Path, run: Run, tmp_path: Path) -> None:
    """Each way of starting a process; the child works in another folder, and without the path to sg3."""
    script.write_text(
        "import multiprocessing as mp, os, sys, collections\n"
        "seen = collections.Mapping\n"
        "def work(queue):\n"
        "    import torch_utils, distutils.version\n"
        "    queue.put((torch_utils.__file__, collections.Mapping.__name__, __name__, sys.argv))\n"
        "if __name__ == '__main__':\n"
        f"    os.chdir({str(tmp_path)!r})\n"
        f"    context = mp.get_context({method!r})\n"
        "    queue = context.Queue()\n"
        "    child = context.Process(target=work, args=(queue,))\n"
        "    child.start(); print(*queue.get(timeout=30), sep='|'); child.join(); print(child.exitcode)\n"
    )
    # -S: not even an installed sg3 is found
    done = run(script, "arg", python=("-S", "-m", "sg3.compat"))
    assert done.returncode == 0, done.stderr
    file, name, main, argv, exitcode = done.stdout.replace("\n", "|").split("|")[:5]
    assert Path(file).is_relative_to(ROOT / "sg3" / "compat" / "modules")
    assert (name, argv, exitcode) == ("Mapping", str([str(script), "arg"]), "0")
    assert main == ("__main__" if method == "fork" else "__mp_main__")


def test_children_of_a_script_that_installs_by_itself(script: Path, run: Run) -> None:
    """Spawned children import the script, and so install again, what they have already."""
    script.write_text(
        "import sg3.compat\n"
        "sg3.compat.install()\n"
        "import multiprocessing as mp, collections\n"
        "def work():\n"
        "    assert collections.Mapping\n"
        "if __name__ == '__main__':\n"
        "    child = mp.get_context('spawn').Process(target=work)\n"
        "    child.start(); child.join(); print(child.exitcode)\n"
    )
    done = run(script, python=PYTHON, PYTHONPATH=str(ROOT))
    assert (done.stdout, done.stderr) == ("0\n", "")


# ---- mistakes on the command line


@pytest.mark.parametrize(("words", "code", "line"), [
    ((), 2, "the script to run is missing"),
    (("-m",), 2, "the module to run is missing"),
    (("--no-such-option", "a.py"), 2, "unrecognized arguments: --no-such-option"),
    (("--modules", "some", "a.py"), 2, "invalid choice: 'some'"),
    (("absent.py", "--x"), 66, "error: absent.py: there is no such script"),
    (("sg3",), 65, "error: sg3: is a folder, expected a Python script"),
    (("-m", "absent_module"), 66, "error: -m absent_module: there is no such module"),
    (("-m", "sg3.absent"), 66, "error: -m sg3.absent: there is no such module"),
])  # fmt: skip
def test_usage(words: tuple[str, ...], code: int, line: str, run: Run) -> None:
    done = run(*words)
    assert done.returncode == code
    assert line in done.stderr
    assert "Traceback" not in done.stderr
    if code != 2:
        assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_help_names_examples(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "Examples:" in done.stdout
    assert "python -m sg3.compat train.py" in done.stdout


def test_help_is_quick_to_come() -> None:
    code = (
        "import runpy, sys\nsys.argv = ['x', '-h']\ntry: runpy.run_module('sg3.compat', run_name='__main__')\n"
        "except SystemExit: pass\nassert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT, timeout=60)
