"""`sg3 generate`."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import rich_click as click

from sg3.cli import options
from sg3.terminal import say, show

T = TypeVar("T")


@click.command("generate")
@options.network
@click.option("--seeds", type=options.IntRangeList(), help="Seeds, such as 0-7,12.")
@click.option("--latents", "--projected-w", type=options.INPUT_FILE, multiple=True, metavar="FILE",
              help="Latents from a file instead: .npz with w or z (projected_w.npz of a projection, with its noise or "
                   "transform), .npy or .pt of other programs; may be repeated.")
@options.outdir
@options.trunc
@options.one_class
@options.noise_mode
@click.option("--translate", type=options.FloatPair(), default="0,0", show_default=True,
              help="Move the image by these fractions of its size (StyleGAN3).")
@click.option("--rotate", type=options.Finite(), default=0.0, show_default=True, metavar="DEG",
              help="Rotate the image (StyleGAN3).")
@click.option("--grid", type=options.GridSize(), help="Also write grid.png, columns x rows.")
@options.scale
@options.captions
@options.bars
@options.batch
@options.no_graphs
@options.device
def command(
    network: str,
    seeds: list[int] | None,
    latents: tuple[Path, ...],
    outdir: Path,
    truncation_psi: float,
    class_idx: int | None,
    noise_mode: str,
    translate: tuple[float, float],
    rotate: float,
    grid: tuple[int, int] | None,
    scale: int | None,
    captions: bool,
    bars: bool,
    batch: int,
    no_graphs: bool,
    device: str,
) -> None:
    """Make images, one PNG for each seed or saved latent, with seed and settings in its metadata.

    Processes started by torchrun or srun share them out.

    Examples:

        sg3 generate --network=runs/00000-... --seeds=0-15 --outdir=out --grid=4x4

        sg3 generate --network=net.pkl --seeds=2 --trunc=0.7 --rotate=30 --translate=0.1,0 --outdir=out

        sg3 generate --network=net.pkl --latents=out/projected_w.npz --outdir=out
    """
    from sg3.cli.network import note_truncation, open_framed, require_network
    from sg3.errors import UsageError

    if (seeds is not None) + bool(latents) != 1:
        raise UsageError("--seeds, --latents: give one of them, the images come from it")
    _check_room(grid, len(seeds or ()))
    require_network(network)
    import sg3
    from sg3.cli.ranks import ranks
    from sg3.models import StyleGenerator
    from sg3.progress import track
    from sg3.sampling import class_labels, generate, seed_latents, set_transform
    from sg3.tools.files import Pixels, make_folder, save_png, seed_caption, sheet, with_class, without_bars
    from sg3.tools.latent_files import pictures_of_files

    settings = {
        "network": Path(network).name, "trunc": truncation_psi, "class": None, "noise_mode": noise_mode,
        "translate": list(translate), "rotate": rotate, "sg3": sg3.__version__,
    }  # fmt: skip
    with ranks(device) as world:
        G, visible = world.together(lambda: open_framed(network, str(world.device), class_idx, bars))
        shown_class = class_idx if G.c_dim else None
        if world.is_main:
            note_truncation(isinstance(G, StyleGenerator), truncation_psi)
        set_transform(G, translate, rotate)
        names: list[tuple[str, dict[str, object], int | None]]  # of files, what made their pictures, class
        if seeds is not None:
            class_labels(G, class_idx, 1)
            names = [(f"seed{seed:04d}.png", {"seed": seed}, shown_class) for seed in seeds]
            mine = list(world.mine(seeds))
            pictures = generate(
                G, seed_latents(mine, G.z_dim), class_labels(G, class_idx, len(mine)), truncation_psi=truncation_psi,
                noise_mode=noise_mode, batch=batch, graphs=not no_graphs,
            ) if mine else iter(())  # fmt: skip
        else:
            moved = translate != (0.0, 0.0) or rotate != 0.0
            held, pictures = world.together(lambda: pictures_of_files(
                G, latents, class_idx=class_idx, truncation_psi=truncation_psi, noise_mode=noise_mode, batch=batch,
                keep_transform=moved, share=(world.rank, world.size),
                note=lambda note: say(f"note: {note}") if world.is_main else None,
            ))  # fmt: skip
            sources = [({"latents": path.name, "index": k}, shown_class if space == "z" else None)  # w holds its own
                       for path, (space, count) in zip(latents, held, strict=True) for k in range(count)]  # fmt: skip
            names = [(f"latent{i:04d}.png", *source) for i, source in enumerate(sources)]
            _check_room(grid, len(names))
        due = world.mine(names)

        def write() -> list[Pixels]:
            make_folder(outdir)
            kept: list[Pixels] = []
            for (name, more, of_class), whole in track(zip(due, pictures, strict=True), "images", len(due)):
                pixels = without_bars(whole, visible)
                save_png(outdir / name, pixels, {**more, **settings, "class": of_class})
                show(outdir / name)
                if grid is not None:
                    kept.append(pixels)
            return kept

        everyone = world.gather(world.together(write))
    if grid is None or not world.is_main:
        return
    columns, rows = grid
    if len(names) < columns * rows:
        say(f"note: --grid={columns}x{rows}: {len(names)} images for {columns * rows} places, the rest stays black")
    pixels_of = [everyone[i % world.size][i // world.size] for i in range(len(names))]
    places = [*pixels_of, *[None] * (columns * rows - len(pixels_of))]
    more = {"seeds": seeds} if seeds is not None else {"latents": [path.name for path in latents]}
    if seeds is not None:
        words = [seed_caption(seed, shown_class) for seed in seeds]
    else:
        words = [with_class(" ".join(map(str, said.values())), of_class) for _, said, of_class in names]
    words += [""] * (columns * rows - len(words))
    picture = sheet(_in_rows(places, columns), _in_rows(words, columns) if captions else None, scale)
    any_class = next((of_class for *_, of_class in names if of_class is not None), None)
    save_png(outdir / "grid.png", picture, {**more, **settings, "class": any_class})
    show(outdir / "grid.png")


def _in_rows(items: list[T], columns: int) -> list[list[T]]:
    return [items[start : start + columns] for start in range(0, len(items), columns)]


def _check_room(grid: tuple[int, int] | None, images: int) -> None:
    from sg3.errors import UsageError

    if grid is not None and not images <= grid[0] * grid[1] <= 10**5:
        raise UsageError(f"--grid={grid[0]}x{grid[1]}: expected room for {images} images (and at most 100000)")
