"""`compute`: metrics in, numbers and recipes out, whatever the batch, the company or the number of processes."""

from __future__ import annotations

import copy
import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

import sg3
from sg3.errors import DataError, MissingInputError, UsageError
from sg3.metrics import RealImages, compute
from sg3.metrics.functional import (
    density_coverage,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
)
from sg3.metrics.monge import monge_distance
from sg3.metrics.names import parse
from sg3.metrics.path_length import spherical
from sg3.metrics.samples import Samples, random_labels
from sg3.metrics.wavelets import frechet_wavelet_distance
from tests.helpers.image_files import encoded, pixels, write_dataset, write_zip
from tests.helpers.pixel_detectors import PixelDetector, pixel_detectors
from tests.helpers.tiny_networks import generator2, generator3

SUITE = ("fid22_full", "kid22_full", "pr22_3_full", "dc22_3_full", "is22", "fd_efflite10_full", "fid14_full",
         "mind18_full", "dc_lite1_22_3_full", "kd_lite1_22_full", "fd_lite1_22_full")
REST = ("ppl6_wend", "ppl5_zfull", "eqt10_int", "eqt6_frac", "eqr7")
SUITE2 = ("fid13_full", "is22", "fid6_full_per_class", "ppl5_wend", "fwd13_full")


def run(names, G, real=None, **options) -> dict[str, float]:
    """All numbers of these metrics."""
    settings = {"device": "cpu", "batch": 8, "detectors": pixel_detectors(), **options}
    values: dict[str, float] = {}
    for result in compute([parse(name) for name in names], G, real, **settings):
        values |= result.results
    return values


def features_of(G, count: int, detector: PixelDetector, real: RealImages, seed: int = 0) -> torch.Tensor:
    """What the driver should see of generated images."""
    samples = Samples(G, random_labels(G, real.open(), seed), seed, batch=8)
    return torch.cat([detector.features(samples.images(part)) for part in samples.chunks(count)])[:count]


class TestDefinitions:
    def test_are_those_of_functional(self, real16: RealImages, detectors) -> None:
        G = generator3()
        values = run(SUITE, G, real16)
        images = torch.stack([torch.from_numpy(image) for image, _ in real16.open()])
        inception, vgg16, efflite = (detectors[name] for name in ("inception", "vgg16", "efflite"))
        real, gen = inception.features(images), features_of(G, 22, inception, real16)
        assert values["fid22_full"] == pytest.approx(frechet_distance(real, gen), rel=1e-9)
        assert values["fid14_full"] == pytest.approx(frechet_distance(real, gen[:14]), rel=1e-9)
        assert values["kid22_full"] == pytest.approx(kernel_distance(real, gen)[0], rel=1e-6)
        assert values["is22_mean"] == pytest.approx(inception_score(inception.probabilities_from(gen))[0], rel=1e-6)
        pair = precision_recall(vgg16.features(images), features_of(G, 22, vgg16, real16))
        assert (values["pr22_3_full_precision"], values["pr22_3_full_recall"]) == pair
        lite1 = detectors["lite1"]
        real1, gen1 = lite1.features(images), features_of(G, 22, lite1, real16)
        assert values["fd_lite1_22_full"] == pytest.approx(frechet_distance(real1, gen1), rel=1e-9)
        assert values["kd_lite1_22_full"] == pytest.approx(kernel_distance(real1, gen1)[0], rel=1e-6)
        pair = density_coverage(real1, gen1, k=3)
        assert (values["dc_lite1_22_3_full_density"], values["dc_lite1_22_3_full_coverage"]) == pair
        assert values["mind18_full"] == pytest.approx(monge_distance(real, gen[:18]), rel=1e-6)
        lite = frechet_distance(efflite.features(images), features_of(G, 10, efflite, real16))
        assert values["fd_efflite10_full"] == pytest.approx(lite, rel=1e-9)

    def test_wavelet_distance_sees_the_pixels(self, real8: RealImages) -> None:
        G = generator2()
        images = torch.stack([torch.from_numpy(image) for image, _ in real8.open()])
        samples = Samples(G, random_labels(G, real8.open(), 0), 0, batch=8)
        made = torch.cat([samples.images(part) for part in samples.chunks(13)])[:13]
        value = run(["fwd13_full"], G, real8)["fwd13_full"]
        assert value == frechet_wavelet_distance(images, made)  # sums of integers, so to the last bit

    def test_legacy_ones_see_mirrored_images_up_to_their_number(self, real16: RealImages, detectors) -> None:
        G, inception = generator3(), detectors["inception"]
        mirrored = replace(real16, xflip=True)
        data = mirrored.open(mirrored=True)
        assert len(data) == 40
        gen = features_of(G, 33, inception, real16)
        seen = inception.features(torch.stack([torch.from_numpy(data[i][0]) for i in range(33)]))
        values = run(["fid33", "fid33_full"], G, mirrored)
        assert values["fid33"] == pytest.approx(frechet_distance(seen, gen), rel=1e-9)
        assert values["fid33_full"] == pytest.approx(frechet_distance(seen[:20], gen), rel=1e-9)
        assert values["fid33"] != pytest.approx(values["fid33_full"], rel=1e-3)

    def test_per_class_gives_each_class_and_the_mean(self, real8: RealImages, detectors) -> None:
        G, inception = generator2(), detectors["inception"]
        values = run(["fid6_full_per_class"], G, real8)
        assert list(values) == ["fid6_full_per_class", *(f"fid6_full_per_class_{index}" for index in range(3))]
        assert values["fid6_full_per_class"] == pytest.approx(sum(list(values.values())[1:]) / 3)
        data = real8.open()
        images = torch.stack([torch.from_numpy(data[i][0]) for i in range(len(data)) if data[i][1][2] == 1])
        samples = Samples(G, lambda _start, count: torch.eye(3)[2:].expand(count, 3), 0, 4)
        gen = torch.cat([inception.features(samples.images(part)) for part in samples.chunks(6)])[:6]
        expected = frechet_distance(inception.features(images), gen)
        assert values["fid6_full_per_class_2"] == pytest.approx(expected, rel=1e-6)

    def test_per_class_on_another_detector_with_intervals(self, real8: RealImages, detectors) -> None:
        metrics = [parse("fd_lite1_6_full_per_class")]
        (found,) = compute(metrics, generator2(), real8, device="cpu", batch=4, detectors=detectors, intervals=True)
        assert found.recipe["real_images_of_class"] == {"0": 6, "1": 6, "2": 6}
        assert found.recipe["classes_left_out"] == []
        assert (found.recipe["detector"], found.recipe["ddof"]) == ("lite1", 0)
        assert set(found.intervals) == set(found.results) - {"fd_lite1_6_full_per_class"}
        plain = run(["fd_lite1_6_full_per_class"], generator2(), real8, batch=4)
        assert plain == pytest.approx(found.results, rel=1e-9)

    def test_density_and_coverage_of_each_class(self, real8: RealImages, detectors) -> None:
        name, lite1 = "dc_lite1_7_3_full_per_class", detectors["lite1"]
        (found,) = compute([parse(name)], generator2(), real8, device="cpu", batch=4, detectors=detectors,
                           intervals=True)  # fmt: skip
        whole, data = found.results, real8.open()
        numbers = [f"{name}_density", f"{name}_coverage"]
        assert list(whole) == [*numbers, *(f"{number}_{i}" for i in range(3) for number in numbers)]
        assert set(found.intervals) == set(list(whole)[2:])
        assert (found.recipe["k"], found.recipe["real_images_of_class"]) == (3, {"0": 6, "1": 6, "2": 6})
        for i in range(3):
            images = torch.stack([torch.from_numpy(data[j][0]) for j in range(len(data)) if data[j][1][i] == 1])
            samples = Samples(generator2(), lambda _start, count, i=i: torch.eye(3)[[i]].expand(count, 3), 0, 4)
            gen = torch.cat([lite1.features(samples.images(part)) for part in samples.chunks(7)])[:7]
            expected = density_coverage(lite1.features(images), gen, k=3)
            assert (whole[f"{name}_density_{i}"], whole[f"{name}_coverage_{i}"]) == expected
        for what in ("density", "coverage"):
            assert whole[f"{name}_{what}"] == pytest.approx(sum(whole[f"{name}_{what}_{i}"] for i in range(3)) / 3)

    def test_one_pass_over_a_class_serves_all_metrics(self, real8: RealImages, monkeypatch) -> None:
        names = ["fid6_full_per_class", "dc_lite1_7_3_full_per_class", "fid7_full_per_class"]
        alone = {name: value for one in names for name, value in run([one], generator2(), real8).items()}
        made: list[int] = []
        images = Samples.images
        monkeypatch.setattr(Samples, "images", lambda self, part: made.append(len(part)) or images(self, part))
        assert run(names, generator2(), real8) == alone
        assert made == [8, 8, 8]  # a batch of each class

    def test_classes_without_enough_real_images_for_the_balls(self, real8: RealImages) -> None:
        with pytest.raises(UsageError, match="no class has 7 real images"):
            run(["dc_lite1_9_6_full_per_class"], generator2(), real8)

    def test_path_length_is_the_slope_of_the_features(self, real16: RealImages) -> None:
        """For a detector that is linear, d = |dG/dt|^2, here from a step a hundred times as long."""

        class Linear(PixelDetector):
            def lpips(self, images: torch.Tensor) -> torch.Tensor:
                return images.double().flatten(1) / 127.5

        G = generator3()
        value = run(["ppl1_wend"], G, detectors={"vgg16": Linear("vgg16")})["ppl1_wend"]
        from sg3.randomness import latents

        w0, w1 = (G.mapping(latents(0, f"metrics/ppl/{z}", 0, 1, G.z_dim), None) for z in ("z0", "z1"))
        step = 1e-2
        ahead, behind = (G.synthesis(w0.lerp(w1, t), force_fp32=True) for t in (step, -step))
        slope = (ahead - behind).double() / (2 * step)
        assert value == pytest.approx(float(slope.square().sum()), rel=0.02)

    def test_spherical_interpolation_golden(self, golden: Path) -> None:
        import numpy as np

        with np.load(golden / "metrics.npz") as arrays:
            a, b, t, out = (torch.from_numpy(arrays[f"slerp/{name}"]) for name in ("a", "b", "t", "out"))
        torch.testing.assert_close(spherical(a, b, t), out, rtol=1e-5, atol=1e-6)


class TestIndependence:
    @pytest.mark.parametrize("batch", [3, 64])
    def test_of_the_batch(self, batch: int, real16: RealImages, real8: RealImages) -> None:
        for names, G, real in ((SUITE + REST, generator3(), real16), (SUITE2, generator2(), real8)):
            expected, got = run(names, G, real), run(names, G, real, batch=batch, cache=False)
            assert got == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("family", [3, 2])
    def test_of_the_other_metrics(self, family: int, real16: RealImages, real8: RealImages) -> None:
        names, G, real = (SUITE + REST, generator3(), real16) if family == 3 else (SUITE2, generator2(), real8)
        together = run(names, G, real)
        alone: dict[str, float] = {}
        for name in names:
            alone |= run([name], G, real)
        assert alone == pytest.approx(together, rel=1e-9)

    def test_seeds_give_other_images(self, real16: RealImages) -> None:
        G = generator3()
        first, second = (run(["fid22_full", "eqt8_frac"], G, real16, seed=seed) for seed in (0, 1))
        assert all(first[name] != second[name] for name in first)

    def test_repeatable_and_leaves_no_trace(self, real8: RealImages) -> None:
        """Not in the network, nor in torch's random state, which training goes on with."""
        G = generator2()
        before = copy.deepcopy(G.state_dict())
        torch.manual_seed(11)
        state = torch.get_rng_state()
        first = run(SUITE2, G, real8)
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(tensor, before[name]) for name, tensor in G.state_dict().items())
        torch.manual_seed(12)
        assert run(SUITE2, G, real8) == first
        G3 = generator3()
        G3.synthesis.input.transform.copy_(torch.eye(3))
        run(["eqr4"], G3)
        assert torch.equal(G3.synthesis.input.transform, torch.eye(3))

    def test_a_transform_that_was_set_does_not_count(self) -> None:
        G = generator3()
        plain = run(["eqt8_int"], G)
        G.synthesis.input.transform[0, 2] = 0.3
        assert run(["eqt8_int"], G) == plain

    def test_one_pass_for_all(self, real16: RealImages, detectors) -> None:
        compute([parse(name) for name in SUITE], generator3(), real16, device="cpu", batch=8, detectors=detectors)
        assert detectors["inception"].seen == 20 + 24
        assert detectors["vgg16"].seen == 20 + 24
        assert detectors["efflite"].seen == 20 + 16  # it wants 10, which is one of the batches

    def test_of_worker_processes(self, real16: RealImages) -> None:
        assert run(["fid22_full"], generator3(), real16, workers=2) == run(["fid22_full"], generator3(), real16)


def _process(rank: int, size: int, folder: str, path16: str, path8: str) -> None:
    """One of several processes; the first one writes what it got, the last one checks that it got the same."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    values = run(SUITE + REST, generator3(), RealImages(Path(path16)), cache=False)
    values |= run(SUITE2, generator2(), RealImages(Path(path8), use_labels=True), cache=True)
    again = run(SUITE2, generator2(), RealImages(Path(path8), use_labels=True), cache=True)
    (Path(folder) / f"values{rank}.json").write_text(json.dumps([values, again]))
    try:  # what fails in one process fails in all of them, at once
        broken = pixel_detectors()
        if rank == size - 1:
            broken["inception"].features = None
        run(["fid22_full"], generator3(), RealImages(Path(path16)), detectors=broken, cache=False)
    except Exception as error:
        (Path(folder) / f"error{rank}").write_text(f"{type(error).__name__}: {error}")
    stopped = run(SUITE, generator3(), RealImages(Path(path16)), stop=lambda: rank == size - 1)
    (Path(folder) / f"stopped{rank}").write_text(str(len(stopped)))
    dist.destroy_process_group()


def test_two_processes_get_what_one_gets(tmp_path: Path, discs16: Path, labelled8: Path, real16, real8) -> None:
    """Also from the cache, which only the first one reads; and errors and stops reach all of them."""
    arguments = (2, str(tmp_path), str(discs16), str(labelled8))
    torch.multiprocessing.start_processes(_process, args=arguments, nprocs=2, start_method="fork")
    expected = run(SUITE + REST, generator3(), real16) | run(SUITE2, generator2(), real8)
    for rank in range(2):
        values, again = json.loads((tmp_path / f"values{rank}.json").read_text())
        assert values == pytest.approx(expected, rel=1e-4)
        assert again == {name: pytest.approx(values[name], rel=1e-9) for name in again}
    assert (tmp_path / "error0").read_text().startswith("Sg3Error: TypeError in another process: ")
    assert (tmp_path / "error1").read_text().startswith("TypeError: ")
    assert [(tmp_path / f"stopped{rank}").read_text() for rank in range(2)] == ["0", "0"]
    assert not multiprocessing.active_children()


class TestResults:
    def test_recipe(self, real16: RealImages, detectors) -> None:
        names = ["fid9_full", "fid30", "eqt4_int"]
        metrics = [parse(name) for name in names]
        full, legacy, moved = compute(metrics, generator3(), real16, device="cpu", batch=4, seed=3, detectors=detectors)
        assert [full.metric, legacy.metric, moved.metric] == metrics
        assert [result.as_dict()["metric"] for result in (full, legacy, moved)] == names
        recipe = full.recipe
        assert (recipe["num_gen"], recipe["num_real"], recipe["seed"], recipe["batch"]) == (9, 20, 3, 4)
        assert (recipe["detector"], recipe["detector_sha256"]) == ("inception", "inception-12")
        assert recipe["resize"] == "4x4 average"
        assert recipe["dataset"]["sha256"] == real16.open().content_hash()
        assert recipe["dataset"]["resize_filter"] is None
        assert recipe["versions"]["sg3"] == sg3.__version__
        assert recipe["versions"]["torch"] == torch.__version__
        assert legacy.recipe["num_real"] == 20
        assert moved.recipe["num_real"] is None
        assert full.num_gpus == 1
        assert full.seconds > 0
        json.dumps(full.as_dict())

    def test_recipe_and_notes_of_the_wavelet_distance(self, real8: RealImages) -> None:
        (result,) = compute([parse("fwd9_full")], generator2(), real8, device="cpu")
        recipe = result.recipe
        assert {name: recipe[name] for name in ("wavelet", "level", "packet", "ddof", "num_gen", "num_real")} == {
            "wavelet": "haar", "level": 0, "packet": [3, 8, 8], "ddof": 1, "num_gen": 9, "num_real": 18}  # fmt: skip
        assert "detector" not in recipe
        (note,) = recipe["notes"]
        assert note.startswith("9 images for packets of 192 numbers: their covariance is singular")

    def test_recipes_say_how(self, real16: RealImages, detectors) -> None:
        names = {
            "fd_lite1_9_full": {"ddof": 0, "detector": "lite1", "resize": "4x4 average"},
            "kid9_full": {"subsets": 100, "subset_size": 1000},
            "mind9_full": {"directions": 1000, "n": 9},
            "dc9_5_full": {"k": 5, "inside": "distance < radius"},
            "pr9_3_full": {"k": 3, "inside": "distance <= radius, in float16"},
        }
        for result in compute([parse(name) for name in names], generator3(), real16, device="cpu", detectors=detectors):
            expected = names[result.metric.name]
            assert {key: result.recipe[key] for key in expected} == expected

    def test_duplicates_among_real_images_are_named(self, tmp_path: Path, detectors) -> None:
        image = encoded(pixels(0, 16))
        others = {f"{number}.png": encoded(pixels(number, 16)) for number in range(9)}
        path = write_zip(tmp_path / "same.zip", {**others, "a.png": image, "b.png": image, "c.png": image})
        (result,) = compute([parse("dc9_2_full")], generator3(), RealImages(path), device="cpu", detectors=detectors)
        (note,) = result.recipe["notes"]
        assert note.startswith("4 of 12 real images have 2 copies or more among the others")
        assert result.results["dc9_2_full_coverage"] <= 8 / 12

    def test_resampling_filter_comes_from_the_dataset(self, tmp_path: Path, discs16: Path, detectors) -> None:
        from sg3.data.prepare import prepare
        from sg3.data.transforms import ImagePlan

        plan = ImagePlan(None, (8, 8), "box", "keep", "white")
        prepare(str(discs16), str(tmp_path / "box.zip"), plan, "auto", None, False, False, lambda *_: None)
        real = RealImages(tmp_path / "box.zip")
        assert real.facts(real.open())["resize_filter"] == "box"

    def test_come_one_by_one_and_stop_when_asked(self, real16: RealImages, detectors) -> None:
        seen: list[str] = []
        results = compute(
            [parse(name) for name in ("eqt8_int", "fid22_full", "ppl8_wend", "is22")], generator3(), real16,
            device="cpu", detectors=detectors,
            on_result=lambda result: seen.append(result.metric.name), stop=lambda: len(seen) == 3,
        )  # fmt: skip
        assert seen == ["fid22_full", "is22", "ppl8_wend"]
        assert [result.metric.name for result in results] == seen

    def test_stop_is_asked_within_a_pass(self, real16: RealImages, detectors) -> None:
        asked = []
        results = compute(
            [parse("fid400_full")], generator3(), real16, device="cpu", batch=4, detectors=detectors, cache=False,
            stop=lambda: asked.append(1) or len(asked) > 10,
        )  # fmt: skip
        assert results == []
        assert detectors["inception"].seen == 40  # 5 batches of real images, 5 of the 100 of generated ones

    def test_progress_counts_to_the_end(self, real16: RealImages, detectors) -> None:
        calls: dict[str, list[tuple[int, int]]] = {}
        compute(
            [parse("fid22_full"), parse("eqt8_int")], generator3(), real16, device="cpu", batch=8, detectors=detectors,
            progress=lambda what, done, total: calls.setdefault(what, []).append((done, total)),
        )  # fmt: skip
        assert calls["generated images"] == [(0, 3), (1, 3), (2, 3), (3, 3)]
        assert calls["equivariance"][-1] == (2, 2)
        assert any(what.startswith("real images") for what in calls)

    def test_a_network_that_has_diverged_gives_no_crash(self, real16: RealImages) -> None:
        G = generator3()
        for parameter in G.parameters():
            parameter.fill_(float("nan"))
        values = run(["fid12_full", "ppl4_wend", "eqt4_int"], G, real16)
        assert values["ppl4_wend"] != values["ppl4_wend"]
        assert values["eqt4_int"] != values["eqt4_int"]
        for result in compute([parse("eqt4_int")], G, device="cpu"):
            assert result.as_dict()["results"] == {"eqt4_int": None}


class TestErrors:
    @pytest.mark.parametrize(
        ("names", "words"),
        [
            (["fid50k_fulll"], "unknown; choose from fid50k_full kid50k_full"),
            (["fid9_full"], "compares with real images; name them with --data"),
            (["is20"], "conditional and takes its labels from"),
            (["eqt8_int", "eqr8"], "eqt8_int, eqr8: only StyleGAN3 networks can be moved"),
        ],
    )
    def test_stylegan2_without_data(self, names: list[str], words: str) -> None:
        with pytest.raises(UsageError, match=words):
            run(names, generator2())

    def test_dataset_of_another_size(self, real8: RealImages) -> None:
        with pytest.raises(UsageError, match="8 px with 3 channels, the network makes 16 px"):
            run(["fid9_full"], generator3(), real8)

    def test_per_class_without_classes(self, real16: RealImages) -> None:
        with pytest.raises(UsageError, match="needs a conditional network"):
            run(["fid9_full_per_class"], generator3(), real16)

    def test_labels_of_another_width(self, tmp_path: Path) -> None:
        real = RealImages(write_dataset(tmp_path / "five.zip", size=8, labels=5), use_labels=True)
        with pytest.raises(UsageError, match="5 wide, the network's 3"):
            run(["fid9_full"], generator2(), real)

    def test_too_few_real_images(self, tmp_path: Path) -> None:
        real = RealImages(write_dataset(tmp_path / "few.zip", count=3))
        with pytest.raises(UsageError, match="needs at least 4 real images"):
            run(["pr9_3_full"], generator3(), real)

    def test_missing_dataset_and_detector(self, real16: RealImages, tmp_path: Path) -> None:
        with pytest.raises(MissingInputError, match="nowhere"):
            run(["fid9_full"], generator3(), RealImages(tmp_path / "nowhere.zip"))
        with pytest.raises(MissingInputError, match=r"^--detector-dir=\S*no-such-folder: there is no such folder"):
            run(["fid9_full"], generator3(), real16, detectors=None, detector_dir=tmp_path / "no-such-folder")

    @pytest.mark.parametrize("workers", [0, 1])
    def test_broken_image(self, workers: int, tmp_path: Path, discs16: Path) -> None:
        import zipfile

        with zipfile.ZipFile(discs16) as old, zipfile.ZipFile(tmp_path / "bad.zip", "w") as new:
            for name in old.namelist():
                new.writestr(name, b"no image" if name.endswith("7.png") else old.read(name))
        with pytest.raises(DataError, match=r"img0000000\d\.png") as caught:
            run(["fid9_full"], generator3(), RealImages(tmp_path / "bad.zip"), workers=workers)
        assert "\n" not in str(caught.value)
