"""Power spectra: their scale, where frequencies end up, files, plots and `sg3 spectra`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sg3
from sg3.errors import DataError, MissingInputError, Sg3Error, UsageError
from sg3.tools import spectra_plots
from sg3.tools.spectra import Spectrum, load_spectrum, open_images, pixel_stats, power_spectrum, save_spectrum
from tests.helpers.for_tools import saved, tiny2, tiny3
from tests.helpers.image_files import soft_discs, write_transparent


def noise(count: int, side: int = 32, channels: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    values = rng.normal(128, 20, [count, side, side, channels])
    return list(values.round().clip(0, 255).astype(np.uint8))


def wave(across: int, down: int, side: int = 32) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side
    return (128 + 100 * np.cos(2 * np.pi * (across * x + down * y))).round().astype(np.uint8)[:, :, np.newaxis]


@pytest.mark.parametrize("channels", [1, 3])
def test_pixel_stats_are_numpys(channels: int) -> None:
    images = noise(5, channels=channels)
    images[0] //= 3
    found, everything = pixel_stats(iter(images)), np.stack(images).astype(np.float64)
    assert found.images == 5
    assert [found.mean, found.std] == pytest.approx([everything.mean(), everything.std()], rel=1e-12)
    assert found.channel_mean == pytest.approx(everything.mean(axis=(0, 1, 2)).tolist(), rel=1e-12)
    assert found.channel_std == pytest.approx(everything.std(axis=(0, 1, 2)).tolist(), rel=1e-12)


@pytest.mark.parametrize("beta", [0.0, 8.0])
def test_white_noise_is_flat_at_0_db(beta: float) -> None:
    level = power_spectrum(noise(300), 128, (400 + 1 / 12) ** 0.5, beta=beta, interp=2).decibels()
    assert level.shape == (64, 64)
    assert abs(level.mean()) < 0.05
    assert np.abs(level).max() < 1  # 900 planes: a deviation of 0.14 dB in one entry


@pytest.mark.parametrize(("across", "down"), [(5, 3), (0, 9), (7, 0), (4, -6)])
def test_a_wave_is_a_peak_at_its_frequency(across: int, down: int) -> None:
    """Rows of the spectrum are vertical frequencies; the peak has its mirror image, and little else is left."""
    power = power_spectrum([wave(across, down)], 128, 1, interp=4).power
    peaks = {(4 * down % 128, 4 * across % 128), (-4 * down % 128, -4 * across % 128)}
    assert {tuple(map(int, divmod(int(i), 128))) for i in power.ravel().argsort()[-2:]} == peaks
    offsets = [(np.indices([128, 128]) - np.reshape(peak, [2, 1, 1]) + 64) % 128 - 64 for peak in peaks]
    distance = np.minimum(*(np.hypot(*offset) for offset in offsets))
    assert power[distance > 24].max() < 1e-4 * power.max()  # six cycles away there is what 8 bits leave, below -40 dB


@pytest.mark.parametrize(("side", "interp"), [(16, 1), (15, 1), (16, 3), (15, 3)])
def test_equals_the_formula(side: int, interp: int) -> None:
    """The whole plane by numpy, for even and odd sides; and Parseval: the mean power is that of the windowed image."""
    images = noise(2, side)
    window = np.outer(np.kaiser(side, 8), np.kaiser(side, 8))
    window /= np.sqrt((window**2).sum())
    white = [(image - 100.0) / 30 * window[:, :, np.newaxis] for image in images]
    size = [side * interp] * 2
    plain = np.mean([np.abs(np.fft.fft2(x, s=size, axes=(0, 1))) ** 2 for x in white], axis=(0, 3))
    found = power_spectrum(images, 100, 30, beta=8, interp=interp)
    assert found.image_size == side
    assert np.allclose(found.power, plain, rtol=1e-10, atol=1e-12)
    assert found.power.mean() == pytest.approx(np.mean([(x**2).sum(axis=(0, 1)) for x in white]), rel=1e-12)


def test_interpolation_keeps_what_was_there() -> None:
    fine, coarse = (power_spectrum(noise(3), 128, 20, interp=interp) for interp in (4, 1))
    assert np.allclose(fine.power[::4, ::4], coarse.power, rtol=1e-10)


def test_slices_run_along_horizontal_and_diagonal() -> None:
    power = np.ones([64, 64])
    power[0, 12] = 100  # 6 cycles per image across
    power[10, 10] = 1000  # 5 across and 5 down
    spectrum = Spectrum(power, 32)
    frequency, level = spectrum.slice(0)
    assert (frequency[-1], level.argmax(), frequency[level.argmax()], level.max()) == (16, 12, 6, pytest.approx(20))
    frequency, level = spectrum.slice(45)
    assert frequency[-1] == pytest.approx(16 * 2**0.5)
    assert (frequency[level.argmax()], level.max()) == (pytest.approx(5 * 2**0.5), pytest.approx(30))


def test_smoothing_is_a_gaussian_in_decibels() -> None:
    level = np.zeros([64, 64])
    level[0, 0] = 30
    smooth = Spectrum(10 ** (level / 10), 32).smoothed(2).decibels()
    y, x = np.mgrid[:64, :64]
    squared = np.minimum(y, 64 - y) ** 2 + np.minimum(x, 64 - x) ** 2  # the ends meet
    assert np.allclose(smooth, 30 * np.exp(-squared / 8) / (8 * np.pi), atol=1e-6)
    spectrum = Spectrum(10 ** (level / 10), 32)
    assert spectrum.smoothed(0) is spectrum


@pytest.mark.parametrize(
    ("images", "mean", "std", "words"),
    [
        ([], 0, 1, "no images"),
        (noise(1), 0, 0, "std above 0"),
        (noise(1), float("nan"), 1, "--mean=nan"),
        (noise(1) + noise(1, 16), 0, 1, "image 1: (16, 16, 3)"),
        ([np.zeros([8, 4, 3], np.uint8)], 0, 1, "expected square images"),
    ],
)
def test_refuses(images: list[np.ndarray], mean: float, std: float, words: str) -> None:
    with pytest.raises(Sg3Error) as caught:
        power_spectrum(images, mean, std)
    assert words in str(caught.value)


def test_files(tmp_path: Path) -> None:
    spectrum = power_spectrum(noise(1), 128, 20)
    save_spectrum(spectrum, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        assert (sorted(file), file["spectrum"].dtype, int(file["image_size"])) == (
            ["image_size", "spectrum"], np.float64, 32
        )  # fmt: skip
    again = load_spectrum(tmp_path / "a.npz")
    assert np.array_equal(again.power, spectrum.power)
    assert again.image_size == 32
    with pytest.raises(MissingInputError, match="there is no such file"):
        load_spectrum(tmp_path / "b.npz")


@pytest.mark.parametrize("kind", ["text", "npy", "other keys", "objects", "oblong", "empty", "cut"])
def test_other_files_are_no_spectra(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    if kind == "text":
        path.write_text("hello")
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.ones([4, 4]))
    elif kind == "other keys":
        np.savez(path, w=np.ones(3))
    elif kind == "objects":
        np.savez(path, spectrum=np.array([[{}]]), image_size=1)
    elif kind == "oblong":
        np.savez(path, spectrum=np.ones([4, 6]), image_size=4)
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        np.savez(path, spectrum=np.ones([40, 40]), image_size=4)
        path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"not a spectrum|no \.npz file of plain arrays|pickled Python objects"):
        load_spectrum(path)


def test_sources(discs: Path, tmp_path: Path) -> None:
    """A network gives the same pictures for a seed, whatever the batch; every class in turn, or the one named."""
    assert open_images(str(discs), None).count == 12
    assert open_images(str(discs), 5).count == len(list(open_images(str(discs), 5).images)) == 5
    chosen = [np.stack(list(open_images(str(discs), 5, seed).images)) for seed in (0, 0, 1)]
    assert np.array_equal(chosen[0], chosen[1])
    assert not np.array_equal(chosen[0], chosen[2])

    path = str(saved(tiny2(c_dim=3), tmp_path / "cond.pkl"))
    with pytest.raises(UsageError, match="--num: needed"):
        open_images(path, None)
    with pytest.raises(UsageError, match="--class=3: out of range"):
        open_images(path, 2, class_idx=3)

    def made(**options: int) -> np.ndarray:
        return np.stack(list(open_images(path, 6, **options).images)).astype(int)

    assert np.abs(made(batch=4) - made(batch=1)).max() <= 1  # batching changes the last bits
    in_turn, same = made(), [made(class_idx=c) for c in range(3)]
    for i, image in enumerate(in_turn):
        assert [np.abs(image - same[c][i]).max() <= 1 for c in range(3)] == [c == i % 3 for c in range(3)]


def test_run_folder_is_a_network(tmp_path: Path) -> None:
    saved(tiny3(), tmp_path / "network-snapshot-000001.pkl")
    (tmp_path / "reals.png").write_bytes(b"")
    assert next(open_images(str(tmp_path), 1).images).shape == (16, 16, 3)


@pytest.mark.parametrize("channels", [2, 4])
def test_premultiplied_colours_and_alpha_by_themselves(channels: int, tmp_path: Path) -> None:
    data = write_transparent(tmp_path / "a.zip", soft_discs(3, channels=channels, invisible=77))
    for source, num in ((str(data), None), (str(saved(tiny3(img_channels=channels), tmp_path / "net.pkl")), 2)):
        colours = [image.copy() for image in open_images(source, num).images]
        planes = [image.copy() for image in open_images(source, num, alpha=True).images]
        assert colours[0].shape == (16, 16, channels - 1)
        assert planes[0].shape == (16, 16, 1)
        assert all((c <= a).all() for c, a in zip(colours, planes, strict=True))
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    (tmp_path / "rgb").mkdir()
    (tmp_path / "b.png").rename(tmp_path / "rgb" / "b.png")
    with pytest.raises(DataError, match="its images have no alpha; leave out --alpha"):
        open_images(str(tmp_path / "rgb"), None, alpha=True)


def test_plots_show_what_they_should() -> None:
    pytest.importorskip("matplotlib")
    spectrum = power_spectrum([wave(8, 3)], 128, 100)
    figure = spectra_plots.heatmap(spectrum, "a wave", smooth=0)
    picture = figure.axes[0].images[0]
    level = np.asarray(picture.get_array())
    assert picture.origin == "lower"  # the first row, the most negative frequency, at the bottom
    left, right, bottom, top = picture.get_extent()
    rows, columns = np.nonzero(level >= level.max() - 1e-6)
    found = {(round(left + (c + 0.5) / 128 * (right - left)), round(bottom + (r + 0.5) / 128 * (top - bottom)))
             for r, c in zip(rows, columns, strict=True)}
    assert found == {(8, 3), (-8, -3)}
    lines = spectra_plots.slices({"wave": spectrum, "again": spectrum}).axes[0].lines
    assert [line.get_label() for line in lines] == ["wave", "again"]
    assert np.array_equal(lines[0].get_ydata(), spectrum.slice(0)[1])


def test_commands_on_a_dataset_and_golden_networks(run, golden: Path, discs: Path, tmp_path: Path) -> None:
    """The documented way from images to plots; the same seed gives the same file."""
    stats = run("spectra", "stats", f"--source={discs}", "--json")
    facts = json.loads(stats.out)
    lines = dict(line.split(" ", 1) for line in run("spectra", "stats", f"--source={discs}").out.splitlines())
    assert list(lines) == ["images", "mean", "std", "channel_mean", "channel_std"]
    assert float(lines["mean"]) == pytest.approx(facts["mean"], rel=1e-5)
    white = [f"--mean={facts['mean']}", f"--std={facts['std']}"]
    files = [tmp_path / "discs.npz"]
    assert run("spectra", "calc", f"--source={discs}", f"--dest={files[0]}", *white).out == f"{files[0]}\n"
    for name in ("sg3r-64", "sg2-32-cond"):
        files.append(tmp_path / f"{name}.npz")
        result = run("spectra", "calc", f"--source={golden / name}.pkl", "--num=3", f"--dest={files[-1]}", *white)
        assert result.code == 0, result.err
    assert [load_spectrum(path).image_size for path in files] == [16, 64, 32]
    assert load_spectrum(files[1]).power.shape == (256, 256)

    source = f"--source={golden / 'sg3r-64.pkl'}"
    for seed in (0, 1):
        run("spectra", "calc", source, "--num=3", f"--dest={tmp_path / f'{seed}.npz'}", f"--seed={seed}", *white)
    powers = [load_spectrum(path).power for path in (files[1], tmp_path / "0.npz", tmp_path / "1.npz")]
    assert np.array_equal(powers[0], powers[1])
    assert not np.array_equal(powers[0], powers[2])

    pytest.importorskip("matplotlib")
    plot = tmp_path / "slices.png"
    assert run("spectra", "slices", *files, f"--save={plot}", "--dpi=50").out == f"{plot}\n"
    assert Image.open(plot).size == (500, 210)
    for suffix, start in ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")):
        plot = tmp_path / f"heat{suffix}"
        assert run("spectra", "heatmap", files[0], f"--save={plot}").code == 0
        assert plot.read_bytes().startswith(start)
    for command, ending in (("heatmap", "-heatmap.png"), ("slices", "-slices.png")):
        place = files[0].with_name(files[0].stem + ending)
        assert run("spectra", command, files[0]).out == f"{place}\n", "without --save it says where the picture went"
        assert place.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["stats", "--source=nothing.zip"], 66, "nothing.zip"),
        (["stats", "--source=NET"], 2, "--num: needed"),
        (["stats", "--source=NET", "--num=1", "--device=tpu9"], 2, "--device=tpu9"),
        (["calc", "--source=NET", "--num=1", "--dest=a.npz"], 2, "--mean"),
        (["calc", "--source=NET", "--num=1", "--dest=a.png", "--mean=0", "--std=1"], 2, "ending in .npz"),
        (["calc", "--source=NET", "--num=1", "--dest=net.pkl/a.npz", "--mean=0", "--std=1"], 74, "is no folder"),
        (["calc", "--source=NET", "--num=1", "--dest=a.npz", "--mean=0", "--std=0"], 2, "std above 0"),
        (["calc", "--source=NET", "--num=1", "--dest=a.npz", "--mean=0", "--std=1", "--interp=0"], 2, "--interp"),
        (["heatmap", "none.npz", "--save=a.bmp"], 2, "ending in .png, .pdf, .svg"),
        (["heatmap", "no/none.npz"], 66, "no/none.npz: there is no such file"),
        (["slices", "--save=a.png"], 2, "NPZ"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_wrong_inputs(run, tmp_path: Path, monkeypatch, args: list[str], code: int, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    network = saved(tiny2(), tmp_path / "net.pkl")
    result = run("spectra", *[a.replace("NET", str(network)) for a in args])
    assert result.code == code, result.err
    assert words in result.error_line()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.pkl"]


def test_plot_of_a_missing_file(run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = run("spectra", "heatmap", tmp_path / "none.npz", f"--save={tmp_path / 'a.png'}")
    assert result.code == 66
    assert "none.npz: there is no such file" in result.error_line()


@pytest.mark.parametrize("command", ["heatmap", "slices"])
def test_without_matplotlib(run, tmp_path: Path, monkeypatch, command: str) -> None:
    save_spectrum(power_spectrum(noise(1), 128, 20), tmp_path / "a.npz")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("spectra", command, tmp_path / "a.npz", f"--save={tmp_path / 'a.png'}")
    assert result.code == 66
    assert "pip install 'sg3[plot]'" in result.error_line()


def test_network_files_of_each_family(tmp_path: Path) -> None:
    """What is measured is what `sg3 generate` would write: 8-bit pictures."""
    for name, G in (("a", tiny3()), ("b", tiny2(img_channels=1))):
        path = saved(G, tmp_path / f"{name}.pkl")
        (image,) = open_images(str(path), 1).images
        assert image.dtype == np.uint8
        assert image.shape == (16, 16, sg3.load(path).G_ema.img_channels)
