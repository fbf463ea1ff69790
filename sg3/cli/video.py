"""`sg3 video`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import rich_click as click

from sg3.cli import options
from sg3.cli.network import background_of, note_truncation, open_walkable, require_network
from sg3.cli.options import GridSize, IntRangeList, switch
from sg3.progress import track
from sg3.terminal import say, show

PANELS = {
    "What": ["--network", "--seeds", "--output", "--trunc", "--class", "--noise-mode", "--help"],
    "Keyframes": ["--grid", "--num-keyframes", "--shuffle-seed", "--latents", "--endpoint", "--seed", "--show-mode"],
    "Path": ["--w-frames", "--interpolation", "--space", "--loop", "--no-loop", "--ease"],
    "File": ["--fps", "--codec", "--bitrate", "--background", "--bars"],
    "Machine": ["--batch", "--no-graphs", "--device"],
}
click.rich_click.OPTION_GROUPS["sg3 video"] = [{"name": k, "options": v} for k, v in PANELS.items()]

up_to_a_million = click.IntRange(1, 10**6)


class Bitrate(click.ParamType[int]):
    """`12M`, `800k` or `500000` -> bits per second."""

    name = "RATE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d{1,10}(?:\.\d{1,10})?)([kM]?)", str(value))
        rate = int(float(match[1]) * {"": 1, "k": 1000, "M": 1_000_000}[match[2]]) if match else 0
        if not 1000 <= rate <= 10**9:
            self.fail(f"{value!r} is not a bit rate like 12M or 800k", param, ctx)
        return rate


@click.command("video")
@options.network
@click.option("--seeds", type=IntRangeList(), help="Keyframes by their seeds, such as 0-7,12.")
@click.option("--output", type=options.OUTPUT, required=True, metavar="FILE",
              help="A .mp4, .webm, .mkv, .mov or .apng; numbered PNGs: a folder or a/frame%05d.png; all frames in one "
              ".png.")
@options.trunc
@click.option("--class", "classes", type=IntRangeList(), help="Class of a conditional network, or one after the other "
              "for the keyframes, such as 0,3,5.")
@options.noise_mode
@click.option("--grid", type=GridSize(), help="Tiles, columns x rows, each with its share of keyframes.  "
              "[default: 1x1]")
@click.option("--num-keyframes", type=up_to_a_million, metavar="N",
              help="Keyframes of each tile, repeating its seeds if need be.  [default: seeds / tiles; no fewer than "
              "classes]")
@click.option("--shuffle-seed", type=options.SEED, help="Shuffle the seeds first.", metavar="SEED")
@click.option("--latents", "--proj-latent", type=options.INPUT_FILE, multiple=True, metavar="FILE",
              help="Keyframes from a .npz with w or z (projected_w.npz), .npy or .pt instead; may be repeated.")
@click.option("--endpoint", type=click.IntRange(2, 10**6), help="Instead of --seeds: this many, from --seed on.",
              metavar="N")
@click.option("--seed", type=click.IntRange(0, 2**31), metavar="N", help="First seed of --endpoint.  [default: 2021]")
@click.option("--show-mode", type=click.Choice(["sequence", "group"]), default="sequence", show_default=True,
              help="group: each tile goes from one keyframe to a second, for pairs of keyframes.")
@click.option("--w-frames", "--interval", "w_frames", type=up_to_a_million, default=120, show_default=True, metavar="N",
              help="Frames from one keyframe to the next.")
@click.option("--interpolation", "--interp-mode", "kind", default="cubic", show_default=True,
              type=click.Choice(["cubic", "linear", "lerp", "slerp"]), help="The path between keyframes.")
@click.option("--space", type=click.Choice(["w", "z"]), help="Where the path runs.  [default: w]")
@switch("--loop", default=None,
        help="Come back to the first keyframe.  [default: on; off with --endpoint and --show-mode=group]")
@click.option("--no-loop", is_flag=True, help="The same as --loop=0.")
@switch("--ease", help="Slow down at each keyframe.")
@click.option("--fps", type=options.FiniteRange(1, 1000), default=60, show_default=True, help="Frames per second.")
@click.option("--codec", help="libx264, libvpx-vp9, libsvtav1, h264_nvenc, mpeg4, ...  "
              "[default: libx264; .webm: libvpx-vp9; with alpha also .mkv, and .mov: prores_ks]")
@click.option("--bitrate", type=Bitrate(), default="12M", show_default=True, help="About this many bits per second.")
@options.background
@options.bars
@options.batch
@options.no_graphs
@options.device
def command(
    network: str,
    seeds: list[int] | None,
    output: Path,
    truncation_psi: float,
    classes: list[int] | None,
    noise_mode: str,
    grid: tuple[int, int] | None,
    num_keyframes: int | None,
    shuffle_seed: int | None,
    latents: tuple[Path, ...],
    endpoint: int | None,
    seed: int | None,
    show_mode: str,
    w_frames: int,
    kind: str,
    space: str | None,
    loop: bool | None,
    no_loop: bool,
    ease: bool,
    fps: float,
    codec: str | None,
    bitrate: int,
    background: str | None,
    bars: bool,
    batch: int,
    no_graphs: bool,
    device: str,
) -> None:
    """Make a video of a smooth walk between images, or a grid of such walks.

    Each tile of the grid goes from keyframe to keyframe: the first tile through the first seeds, and so on.

    Images with alpha keep it in .webm, .mkv (VP9), .mov (ProRes 4444), .apng and PNGs; for .mp4, lay them on a colour
    with --background.

    Examples:

        sg3 video --network=net.pkl --seeds=0-31 --grid=4x2 --trunc=0.7 --output=walk.mp4

        sg3 video --network=cond.pkl --seeds=5 --class=0,3,5 --interpolation=slerp --space=z --output=classes.webm

        sg3 video --network=net.pkl --latents=a/projected_w.npz --latents=b/projected_w.npz --no-loop --output=frames/
    """
    from sg3.errors import UsageError

    if (seeds is not None) + bool(latents) + (endpoint is not None) != 1:
        raise UsageError("--seeds, --latents, --endpoint: give exactly one of them, the keyframes come from it")
    if seed is not None and endpoint is None:
        raise UsageError("--seed: is the first of --endpoint=N seeds; otherwise use --seeds")
    if latents and (num_keyframes is not None or shuffle_seed is not None):
        raise UsageError("--num-keyframes, --shuffle-seed: belong to --seeds, --latents are taken as they come")
    if loop and no_loop:
        raise UsageError("--loop, --no-loop: contradict each other")
    require_network(network)
    import json

    import sg3
    from sg3.canvas import size_of
    from sg3.sampling import seed_latents
    from sg3.tools import video
    from sg3.tools.encode import encoder_name, even_size, open_output, output_kind
    from sg3.tools.latent_as_w import LatentAsW
    from sg3.tools.latent_files import load_latents
    from sg3.transparency import has_alpha

    if loop is None:
        loop = not no_loop and show_mode == "sequence" and endpoint is None
    if endpoint is not None:
        first = 2021 if seed is None else seed
        seeds = list(range(first, first + endpoint))
    made = output_kind(output)
    if made == "video":
        encoder_name(output, codec)
    elif codec is not None:
        raise UsageError(f"--codec={codec}: is for .mp4, .webm and .mkv (.mov, .apng), --output={output} will be PNG")

    G, visible = open_walkable(network, device, classes[0] if classes else None, bars)
    if isinstance(G, LatentAsW):
        note_truncation(False, truncation_psi)
        truncation_psi = 1.0
    behind = background_of(G, background)
    if made == "video":
        codec = encoder_name(output, codec, has_alpha(G.img_channels) and behind is None)
    if noise_mode != "const" and hasattr(G.synthesis, "input"):
        say(f"note: --noise-mode={noise_mode} has no effect, StyleGAN3 has no noise")
        noise_mode = "const"
    classes = classes if G.c_dim else None

    if seeds is not None:
        columns, rows = grid = _choose_grid(grid, show_mode, made, len(seeds), num_keyframes)
        tiles = columns * rows
        if num_keyframes is None and show_mode == "sequence":
            num_keyframes = max(len(seeds) // tiles, len(classes or ()))
        seeds = video.arrange_seeds(seeds, tiles, num_keyframes, shuffle_seed)
        found, points = "z", seed_latents(seeds, G.z_dim)
    else:
        found, points = load_latents(latents, G, space, lambda note: say(f"note: {note}"))
        columns, rows = grid = _choose_grid(grid, show_mode, made, len(points), None)
        tiles = columns * rows
        if classes and found == "w":
            say("note: --class has no effect, w holds a class already")
    keys = video.make_keyframes(G, found, points, tiles, classes or ())
    if space != "z":
        keys = video.map_keyframes(G, keys)
    kind = "linear" if kind == "lerp" else kind
    walk = video.make_walk(G, keys, tiles, kind=kind, loop=loop, ease=ease, truncation_psi=truncation_psi)
    times = video.frame_times(len(points) // tiles, w_frames, loop)

    height, width = visible or size_of(G)
    height, width = rows * height, columns * width
    say(f"{len(times)} frames of {width}x{height}")
    if made == "video" and (height, width) != even_size(height, width):
        say("note: video has even sides, the last row and column of pixels appear twice")
    settings = {
        "network": Path(network).name, "seeds": seeds, "latents": [path.name for path in latents], "grid": grid,
        "trunc": truncation_psi, "class": classes, "noise_mode": noise_mode, "w_frames": w_frames,
        "interpolation": kind, "space": keys.space, "loop": loop, "ease": ease, "sg3": sg3.__version__,
        **({} if behind is None else {"background": background}),
    }  # fmt: skip
    frames = video.render(
        G, walk, times, grid, noise_mode=noise_mode, batch=batch, graphs=not no_graphs, background=behind,
        visible=visible,
    )
    with open_output(output, fps=fps, codec=codec, bitrate=bitrate, comment=json.dumps(settings)) as add:
        for frame in track(frames, "frames", len(times)):
            add(frame)
    show(output)


def _choose_grid(
    grid: tuple[int, int] | None, show_mode: str, made: str, count: int, num_keyframes: int | None
) -> tuple[int, int]:
    """Columns and rows: as asked for, or 1x1; for pairs of keyframes one tile each (one above the other in a sheet)."""
    from sg3.errors import UsageError
    from sg3.tools.video import near_square

    if grid is not None and grid[0] * grid[1] > 10**4:
        raise UsageError(f"--grid={grid[0]}x{grid[1]}: expected at most 10000 tiles")
    if show_mode == "sequence":
        return grid or (1, 1)
    if count % 2 or num_keyframes is not None:
        raise UsageError("--show-mode=group: takes pairs of keyframes, an even number, and no --num-keyframes")
    pairs = count // 2
    if grid is not None and grid[0] * grid[1] != pairs:
        raise UsageError(f"--grid={grid[0]}x{grid[1]}: {pairs} pairs of keyframes need as many tiles")
    return grid or ((1, pairs) if made == "sheet" else near_square(pairs))
