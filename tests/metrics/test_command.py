"""`sg3 metrics`: run folders, what is due, files and messages."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import sg3
import sg3.cli
from sg3.metrics import driver, network_files, parse
from sg3.metrics.network_files import Job, measure
from sg3.metrics.plot import _bands, _curves
from tests.helpers.for_tools import tiny2
from tests.helpers.image_files import write_dataset
from tests.helpers.pixel_detectors import pixel_detectors
from tests.helpers.tiny_networks import generator2, generator3

FIELDS = {"results", "metric", "total_time", "total_time_str", "num_gpus", "snapshot_pkl", "timestamp", "recipe"}


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Detectors that cost nothing; the names of those that were opened."""
    names: list[str] = []

    def open_detector(name: str, device: object, folder: Path | None = None) -> object:
        names.append(name)
        return pixel_detectors()[name]

    monkeypatch.setattr(driver, "open_detector", open_detector)
    return names


@pytest.fixture
def run_dir(tmp_path: Path, discs16: Path) -> Path:
    """A run of two snapshots."""
    folder = tmp_path / "00000-run"
    folder.mkdir()
    (folder / "training_options.json").write_text("{}")
    facts = {"path": str(discs16), "use_labels": False, "xflip": True, "resolution": 16, "max_size": 5}
    for kimg in (0, 1000):
        snapshot = sg3.Snapshot(G_ema=generator3(seed=kimg), training_set_kwargs=facts)
        sg3.save(snapshot, folder / f"network-snapshot-{kimg:06d}.pkl")
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """run("--network=x", ...) -> exit code, stdout, stderr of `sg3 metrics`."""

    def call(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        words = ["metrics", "--batch=8", "--workers=0", "--device=cpu", *map(str, args)]
        code = sg3.cli._run(words, debug=False)
        return code, *capsys.readouterr()

    return call


def lines(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"metric-{name}.jsonl").read_text().splitlines()]


class TestRunFolder:
    def test_newest_snapshot_is_added_to_the_files(self, run, run_dir: Path) -> None:
        code, out, err = run(f"--network={run_dir}", "--metrics=fid10_full,pr10_3_full,eqt4_int")
        assert code == 0, err
        (line,) = lines(run_dir, "fid10_full")
        assert set(line) == FIELDS
        assert line["metric"] == "fid10_full"
        assert line["snapshot_pkl"] == "network-snapshot-001000.pkl"
        assert list(line["results"]) == ["fid10_full"]
        assert line["num_gpus"] == 1
        assert line["total_time_str"].endswith("s")
        assert line["recipe"]["num_real"] == 20  # all of them: neither a subset nor mirrored
        assert line["recipe"]["seed"] == 0
        assert len(line["recipe"]["network_sha256"]) == 64
        assert set(lines(run_dir, "pr10_3_full")[0]["results"]) == {"pr10_3_full_precision", "pr10_3_full_recall"}
        shown = dict(word.split(" ") for row in out.splitlines() for word in row.split("  ")[:-1])
        assert float(shown["fid10_full"]) == pytest.approx(line["results"]["fid10_full"], rel=1e-5)
        assert lines(run_dir, "eqt4_int")[0]["recipe"]["dataset"] is None

    def test_known_results_are_not_computed_again(self, run, run_dir: Path, opened: list[str]) -> None:
        run(f"--network={run_dir}", "--metrics=fid10_full")
        opened.clear()
        code, out, _ = run(f"--network={run_dir}", "--metrics=fid10_full", "--json")
        assert code == 0
        assert opened == []
        assert json.loads(out) == lines(run_dir, "fid10_full")[0]
        for words in (["--seed=1"], ["--again"]):
            assert run(f"--network={run_dir}", "--metrics=fid10_full", *words)[0] == 0
        first, other, again = lines(run_dir, "fid10_full")
        assert first["results"] == again["results"] != other["results"]

    def test_another_dataset_or_network_is_not_known(self, run, run_dir: Path, tmp_path: Path) -> None:
        data = write_dataset(tmp_path / "other.zip", count=15)
        run(f"--network={run_dir}", "--metrics=fid10_full")
        run(f"--network={run_dir}", "--metrics=fid10_full", f"--data={data}")
        assert len(lines(run_dir, "fid10_full")) == 2
        facts = sg3.load(run_dir).training_set_kwargs
        snapshot = sg3.Snapshot(G_ema=generator3(seed=5), training_set_kwargs=facts)
        sg3.save(snapshot, run_dir / "network-snapshot-001000.pkl")
        run(f"--network={run_dir}", "--metrics=fid10_full")
        values = [line["results"]["fid10_full"] for line in lines(run_dir, "fid10_full")]
        assert len(set(values)) == 3

    def test_all_snapshots_and_a_plot(self, run, run_dir: Path, tmp_path: Path, opened: list[str]) -> None:
        picture = tmp_path / "fid.png"
        code, out, err = run(f"--network={run_dir}", "--all", "--metrics=fid10_full,kid10_full", f"--plot={picture}")
        assert code == 0, err
        snapshots = [line["snapshot_pkl"] for line in lines(run_dir, "fid10_full")]
        assert snapshots == ["network-snapshot-000000.pkl", "network-snapshot-001000.pkl"]
        assert out.count("network-snapshot-001000.pkl: ") == 2
        assert opened == ["inception"]  # once for both snapshots and both metrics
        assert picture.read_bytes().startswith(b"\x89PNG")
        picture.unlink()
        code, out, _ = run(f"--network={run_dir}", f"--plot={picture}")
        assert (code, out) == (0, f"{picture}: 2 metrics\n")
        assert picture.exists()

    def test_plots_are_at_the_image(self, run, run_dir: Path, tmp_path: Path) -> None:
        """Where a snapshot says how many images it has seen; its name has whole thousands only."""
        snapshot = sg3.load(run_dir / "network-snapshot-001000.pkl")
        snapshot.progress = {"cur_nimg": 1_000_640}
        sg3.save(snapshot, run_dir / "network-snapshot-001000.pkl")
        assert run(f"--network={run_dir}", "--all", "--metrics=fid10_full")[0] == 0
        assert [line["recipe"].get("cur_nimg") for line in lines(run_dir, "fid10_full")] == [None, 1_000_640]
        assert list(_curves(run_dir, "fid10_full")["fid10_full"]) == [0, 1000.64]

    def test_what_was_not_taken_as_it_is_is_said(self, run, discs16: Path, tmp_path: Path) -> None:
        path = tmp_path / "a.pt"
        sg3.save(sg3.Snapshot(G_ema=tiny2()), path)
        content = torch.load(path)
        content["g_ema"] = {name: x for name, x in content["g_ema"].items() if not name.startswith("noises.")}
        torch.save(content, path)
        code, _, err = run(f"--network={path}", f"--data={discs16}", "--metrics=fid10_full")
        assert code == 0, err
        assert err.count(f"note: {path}: g_ema: has no constant noise; it is drawn anew, the same each time") == 1

    def test_intervals(self, run, run_dir: Path, tmp_path: Path) -> None:
        """A line without them is not known when they are asked for; one with them serves both."""
        run(f"--network={run_dir}", "--metrics=fid30_full")
        words = (f"--network={run_dir}", "--metrics=fid30_full", "--intervals")
        code, out, err = run(*words, f"--plot={tmp_path / 'fid.png'}")
        assert code == 0, err
        plain, line = lines(run_dir, "fid30_full")
        assert (set(plain), set(line)) == (FIELDS, FIELDS | {"intervals"})
        interval = line["intervals"]["fid30_full"]
        assert interval["low"] < line["results"]["fid30_full"] < interval["high"]
        assert (interval["level"], len(interval["left_out"])) == (0.95, 20)
        shown = out.splitlines()[0]
        assert shown.startswith(f"fid30_full {line['results']['fid30_full']:.6g} [{interval['low']:.5g}, ")
        assert _bands(run_dir, "fid30_full") == {"fid30_full": {1000: (interval["low"], interval["high"])}}
        for again in (words, words[:-1]):
            assert "(known)" in run(*again)[1]
        assert len(lines(run_dir, "fid30_full")) == 2

    def test_against_another_network(self, run, run_dir: Path) -> None:
        first = run_dir / "network-snapshot-000000.pkl"
        words = (f"--network={run_dir}", f"--against={first}", "--metrics=fid30_full,is30")
        code, out, err = run(*words)
        assert code == 0, err
        before, after = (line["results"]["fid30_full"] for line in lines(run_dir, "fid30_full"))
        (shown,) = (row for row in out.splitlines() if "minus" in row)  # the Inception score has no groups
        assert shown.startswith(f"  fid30_full minus that of {first}: {after - before:.6g} [")
        assert "is30_mean: both lines need a jackknifed interval" in err
        rows = [json.loads(row) for row in run(*words, "--json")[1].splitlines()]
        assert [set(row.get("difference", {})) for row in rows] == [set(), set(), {"fid30_full"}, set()]
        assert rows[2]["difference"]["fid30_full"]["value"] == pytest.approx(after - before)
        assert run(f"--network={run_dir}", f"--against={first}", "--plot=x.png")[0] == 2

    def test_weights_of_one_detector(self, run, run_dir: Path, tmp_path: Path, monkeypatch) -> None:
        """By path or address, and only if a metric wants it."""
        asked: list[tuple[str, str]] = []

        def open_detector(name: str, device: object, source: str) -> object:
            asked.append((name, source))
            return pixel_detectors()[name]

        monkeypatch.setattr(network_files, "open_detector", open_detector)
        words = ("--detector=inception=https://mirror/a.pth", "--detector=vgg16=b.pt")
        code, _, err = run(f"--network={run_dir}", "--all", "--metrics=fid10_full", *words)
        assert code == 0, err
        assert asked == [("inception", "https://mirror/a.pth")]
        for wrong in ("vgg16", "vgg=b.pt", "vgg16="):
            code, _, err = run(f"--network={run_dir}", "--metrics=fid10_full", f"--detector={wrong}")
            assert code == 2
            assert "expected NAME=FILE, where NAME is one of inception, vgg16" in err

    def test_sheet_and_test_data(self, run, run_dir: Path, tmp_path: Path, monkeypatch) -> None:
        """The run saw 5 of 20 images. With other held-out images, or for a sheet, what is known is measured again."""
        sheet = tmp_path / "sheet.png"
        code, out, err = run(f"--network={run_dir}", f"--sheet={sheet}", "--metrics=auth_lite1_20")
        assert code == 0, err
        assert out.splitlines()[-1] == f"{sheet}: nearest training images"
        assert sheet.read_bytes().startswith(b"\x89PNG")
        data = write_dataset(tmp_path / "other.zip", count=7)
        for words in ([], [f"--test-data={data}"], [f"--test-data={data}"]):
            assert run(f"--network={run_dir}", "--metrics=auth_lite1_20", *words)[0] == 0
        recipes = [line["recipe"] for line in lines(run_dir, "auth_lite1_20")]
        assert [recipe["training_images"] for recipe in recipes] == [5, 5]
        assert [recipe["held_out"] for recipe in recipes] == [15, 7]
        for wrong in (["--all"], [f"--against={run_dir}", "--metrics=auth9"]):
            assert run(f"--network={run_dir}", f"--sheet={sheet}", *wrong)[0] == 2
        jobs: list[Job] = []
        monkeypatch.setattr(network_files, "measure", lambda job, _display: jobs.append(job))
        for names in ([], ["--metrics=fid9"], ["--metrics=fid9,auth_vgg16_9"]):
            run(f"--network={run_dir}", f"--sheet={sheet}", *names)
        assert [",".join(metric.name for metric in job.metrics) for job in jobs] == [
            "auth_lite1", "fid9,auth_lite1", "fid9,auth_vgg16_9"]  # fmt: skip

    def test_interrupted_and_repeated(self, run, run_dir: Path, monkeypatch: pytest.MonkeyPatch, discs16) -> None:
        """What was finished is there after Ctrl-C, and the repeated command does the rest."""
        words = (f"--network={run_dir}", "--metrics=fid10_full,ppl8_wend,eqt4_int")

        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(driver, "equivariance", interrupted)
            code, _, err = run(*words)
            assert code == 130
            assert err.strip() == "interrupted"
        assert len(lines(run_dir, "fid10_full")) == len(lines(run_dir, "ppl8_wend")) == 1
        assert not (run_dir / "metric-eqt4_int.jsonl").exists()
        code, out, _ = run(*words)
        assert code == 0
        assert out.count("(known)") == 2
        assert [len(lines(run_dir, name)) for name in ("fid10_full", "ppl8_wend", "eqt4_int")] == [1, 1, 1]

    def test_a_line_that_a_crash_cut_off(self, run, run_dir: Path) -> None:
        path = run_dir / "metric-eqt4_int.jsonl"
        path.write_text('{"results": {"eqt4_int"')
        assert run(f"--network={run_dir}", "--metrics=eqt4_int")[0] == 0
        broken, whole = path.read_text().splitlines()
        assert broken == '{"results": {"eqt4_int"'
        assert json.loads(whole)["metric"] == "eqt4_int"
        assert run(f"--network={run_dir}", "--metrics=eqt4_int")[1].endswith("(known)\n")

    def test_what_the_dataset_is_and_whether_mirrored_come_from_the_network(self, run, run_dir: Path) -> None:
        run(f"--network={run_dir}", "--metrics=fid30,fid10_full")
        recipe = lines(run_dir, "fid30")[0]["recipe"]
        assert (recipe["num_real"], recipe["mirrored"]) == (30, True)
        assert lines(run_dir, "fid10_full")[0]["recipe"]["mirrored"] is False
        run(f"--network={run_dir}", "--metrics=fid30", "--mirror=0")
        assert lines(run_dir, "fid30")[1]["recipe"]["num_real"] == 20


class TestFiles:
    def test_a_file_of_no_run_leaves_nothing(self, run, tmp_path: Path) -> None:
        path = tmp_path / "net.pkl"
        sg3.save(sg3.Snapshot(G_ema=generator3()), path)
        code, out, err = run(f"--network={path}", "--metrics=eqt4_int,eqt4_frac", "--json")
        assert code == 0, err
        first, second = map(json.loads, out.splitlines())
        assert (first["metric"], second["metric"], first["snapshot_pkl"]) == ("eqt4_int", "eqt4_frac", "net.pkl")
        assert [p.name for p in tmp_path.iterdir() if p.name != "cache"] == ["net.pkl"]

    def test_classes_come_from_the_dataset_named(self, run, tmp_path: Path, labelled8: Path) -> None:
        path = tmp_path / "net.pkl"
        sg3.save(sg3.Snapshot(G_ema=generator2()), path)
        code, out, err = run(f"--network={path}", f"--data={labelled8}", "--metrics=fid6_full_per_class", "--json")
        assert code == 0, err
        values = json.loads(out)["results"]
        assert len(values) == 4
        out = run(f"--network={path}", f"--data={labelled8}", "--metrics=fid6_full_per_class")[1]
        first, *table = out.splitlines()
        assert first.startswith(f"fid6_full_per_class {values['fid6_full_per_class']:.6g}  (")
        assert table == [f"  class    {i}        6 real images  {values[f'fid6_full_per_class_{i}']:>10.6g}"
                         for i in range(3)]  # fmt: skip
        name = "dc_lite1_6_3_full_per_class"
        first, *table = run(f"--network={path}", f"--data={labelled8}", f"--metrics={name}")[1].splitlines()
        assert first.startswith(f"{name}_density ")
        assert f"  {name}_coverage " in first
        assert [line.split()[:5] for line in table] == [["class", str(i), "6", "real", "images"] for i in range(3)]
        assert [len(line.split()) for line in table] == [7, 7, 7]

    @pytest.mark.slow
    def test_processes(self, tmp_path: Path) -> None:
        """`--gpus=2` on the CPU; one process each for what `python -m sg3` would start."""
        import subprocess

        path = tmp_path / "net.pkl"
        sg3.save(sg3.Snapshot(G_ema=generator3()), path)
        words = [sys.executable, "-m", "sg3", "metrics", f"--network={path}", "--device=cpu", "--json"]

        def start(*more: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run([*words, *more], capture_output=True, text=True, check=False, timeout=120)

        two = start("--metrics=eqt10_int", "--gpus=2")
        wrong = start("--metrics=is10", "--gpus=2", f"--detector-dir={tmp_path / 'none'}")
        assert two.returncode == 0, two.stderr
        line = json.loads(two.stdout)
        assert line["num_gpus"] == 2
        shown: list[dict] = []

        class Display:
            def progress(self, what: str, done: int, total: int) -> None: ...

            def result(self, line: dict, known: bool) -> None:
                shown.append(line)

            def close(self) -> None: ...

        measure(Job((path,), (parse("eqt10_int"),), device="cpu"), Display())
        assert line["results"]["eqt10_int"] == pytest.approx(shown[0]["results"]["eqt10_int"], rel=1e-6)
        assert wrong.returncode == 66
        assert wrong.stdout == ""
        assert wrong.stderr.count("error: ") == 1
        assert "none: there is no such folder" in wrong.stderr
        assert "Traceback" not in wrong.stderr

    def test_progress_lines_where_there_is_no_terminal(self, run, tmp_path: Path, monkeypatch) -> None:
        from sg3 import progress

        monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1)
        path = tmp_path / "net.pkl"
        sg3.save(sg3.Snapshot(G_ema=generator3()), path)
        _, _, err = run(f"--network={path}", "--metrics=eqt12_int")
        assert err.splitlines()[0].startswith("equivariance: 1 of 3, ")
        assert "\x1b" not in err

    def test_progress_bar_on_a_terminal(self, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
        from sg3.cli.metrics import Display

        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        display = Display(as_json=False, named=False)
        for what in ("real images", "generated images"):
            for done in range(3):
                display.progress(what, done, 2)
        assert "generated images" in terminal.getvalue()
        assert capsys.readouterr().out == ""


class TestErrors:
    @pytest.fixture
    def net2(self, tmp_path: Path) -> Path:
        path = tmp_path / "net2.pkl"
        sg3.save(sg3.Snapshot(G_ema=generator2()), path)
        return path

    def test_equivariance_of_stylegan2(self, run, net2: Path, labelled8: Path) -> None:
        code, out, err = run(f"--network={net2}", f"--data={labelled8}", "--metrics=eqt4_int,eqr4")
        assert (code, out) == (2, "")
        assert err == (
            "error: eqt4_int, eqr4: only StyleGAN3 networks can be moved, this one has no input transform\n"
        )

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            (["--metrics=fidd"], 2, "metric 'fidd': unknown; choose from fid50k_full"),
            (["--metrics=fid5k_ful"], 2, "; did you mean fid5k_full?"),
            (["--metrics="], 2, "--metrics: names none"),
            (["--metrics=fid9_full"], 2, "name them with --data"),
            (["--metrics=fid9_full", "--data=nowhere.zip"], 66, "nowhere.zip: there is no such file or folder"),
            (["--all", "--metrics=is10"], 2, "--all: needs a run folder"),
            (["--plot=x.png"], 2, "--plot: needs a run folder"),
            (["--network=no-such-run"], 66, "no-such-run: there is no such file or folder"),
        ],
    )
    def test_one_line(self, run, net2: Path, words: list[str], code: int, message: str) -> None:
        got, out, err = run(f"--network={net2}", *words)
        assert (got, out) == (code, "")
        assert message in err
        assert len(err.splitlines()) == 1

    def test_dataset_that_has_gone(self, run, tmp_path: Path) -> None:
        path = tmp_path / "net.pkl"
        sg3.save(sg3.Snapshot(G_ema=generator3(), training_set_kwargs={"path": "/gone/data.zip"}), path)
        code, _, err = run(f"--network={path}", "--metrics=fid9_full")
        assert code == 66
        assert "/gone/data.zip: what net.pkl was trained on is not there; name it with --data" in err
        assert run(f"--network={path}", "--metrics=eqt4_int")[0] == 0  # which has no use for it

    def test_plot_of_an_empty_folder_or_into_an_odd_file(self, run, tmp_path: Path, run_dir: Path) -> None:
        assert run(f"--network={run_dir}", "--plot=x.png")[0] == 66
        assert run(f"--network={run_dir}", "--plot=x.jpg")[0] == 2
        assert not Path("x.png").exists()

    def test_a_plot_that_cannot_be_written_is_refused_before_the_work(self, run, run_dir: Path) -> None:
        for plot, code in (("x.jpg", 2), ("no-such-folder/x.png", 66)):
            got, out, err = run(f"--network={run_dir}", "--metrics=eqt4_int", f"--plot={plot}")
            assert (got, out) == (code, "")
            assert f"--plot={plot}: " in err
        assert not list(run_dir.glob("metric-*.jsonl"))

    def test_plot_without_matplotlib(self, run, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        code, _, err = run(f"--network={run_dir}", "--plot=x.png")
        assert code == 66
        assert "pip install 'sg3[plot]'" in err
