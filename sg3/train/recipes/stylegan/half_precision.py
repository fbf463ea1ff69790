"""What `--amp` and its like mean for G and D: which layers compute in 16 bits, and what contradicts what.

    off      all in float32, nothing is clamped (as --fp32)
    partial  the four highest resolutions (StyleGAN3's G: sampling rates above R / 16), the default as in the original
    global   every layer from 8 x 8 pixels on (StyleGAN3's G: all of them)

Whatever is chosen, mapping networks, the affine layers that make styles, everything at 4 x 4 in StyleGAN2's G and in D,
images, logits, losses and optimisers are float32. Weights are, too: a layer casts them when it runs. Unless all is off,
activations are clamped at 256.

The constructors' argument for that, `num_fp16_res`, is what network files hold: other tools compute as we do.
"""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING

from sg3.train.options import LOSS_SCALES

if TYPE_CHECKING:
    from sg3.train.recipes.stylegan.options import StyleGANOptions

OFF, PARTIAL, GLOBAL = "off", "partial", "global"
PARTIAL_RESOLUTIONS = 4
CLAMP = 256.0


def fp16_resolutions(amp: str, resolution: int) -> int:
    """The argument `num_fp16_res` for networks of that resolution."""
    return {OFF: 0, PARTIAL: PARTIAL_RESOLUTIONS, GLOBAL: max(int(log2(resolution)), PARTIAL_RESOLUTIONS)}[amp]


def amp_of(num_fp16_res: int) -> str:
    """The inverse; up to 16 x 16 pixels, where both are the same, partial rather than global."""
    return OFF if num_fp16_res == 0 else PARTIAL if num_fp16_res <= PARTIAL_RESOLUTIONS else GLOBAL


def clamp(num_fp16_res: int) -> float | None:
    """The argument `conv_clamp`."""
    return CLAMP if num_fp16_res else None


def contradictions(said: StyleGANOptions, half: dict[str, bool], scalers: dict[str, str], loss_scale: int) -> list[str]:
    """What does not fit together, a short line each with the fix. `said` is what the user said, `half` whether G and D
    have layers in 16 bits, `scalers` the kinds of their loss scalers."""
    problems = []
    for flag, amp in (("--amp", said.amp), ("--d-amp", said.d_amp)):
        if said.fp32 and amp not in (None, OFF):
            problems.append(f"--fp32 and {flag}={amp}: choose one")
    is_off = not any(half.values())
    if said.fp32 is False and is_off:
        problems.append(f"--fp32=0 and --amp={OFF}: choose one")
    if said.bf16 and is_off:
        problems.append(f"--bf16 and {'--fp32' if said.amp is None else f'--amp={OFF}'}: choose one")
    if said.amp_on_cpu and is_off:
        problems.append("--amp-on-cpu: no layer computes in 16 bits; see --amp")
    for network, kind in scalers.items():
        if kind != "none" and not half[network]:
            flag = f"--{network.lower()}-scaler={kind}"
            problems.append(f"{flag}: {network} has no layers with 16 bits, whose gradients could vanish; see --amp")
    if said.loss_scale is not None and set(scalers.values()) == {"none"}:
        problems.append("--loss-scale: belongs to --g-scaler and --d-scaler, and neither is static or dynamic")
    if loss_scale not in LOSS_SCALES:
        problems.append(f"--loss-scale={loss_scale}: must be a power of two, so that scaling rounds nothing")
    return problems
