# ruff: noqa: C408 - as old scripts are written
"""Our own stand-in for the official train.py: same layout, same habits, same old calls."""

import argparse
import json
import os
import tempfile

import dnnlib
import torch
from pkg_resources import parse_version
from torch_utils import training_stats
from torch_utils.ops import own_op
from training import training_loop


def subprocess_fn(rank, args, temp_dir):
    os.chdir(temp_dir)
    if args["gpus"] > 1:
        init = "file://" + os.path.join(temp_dir, ".rendezvous")
        torch.distributed.init_process_group("gloo", init_method=init, rank=rank, world_size=args["gpus"])
    training_stats.init_multiprocessing(rank, torch.device("cpu") if args["gpus"] > 1 else None)
    result = training_loop.training_loop(rank, args["gpus"], **args["loop"])
    with open(f"{args['outdir']}/rank{rank}.json", "w") as f:
        json.dump(result, f)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--outdir", required=True)
    parser.add_argument("--gpus", type=int, required=True)
    parser.add_argument("--workers", choices=["fork", "spawn"], default="spawn")
    opts = parser.parse_args()
    assert parse_version(torch.__version__) >= parse_version("1.7.0")
    assert own_op.double(2) == 4
    logger = dnnlib.util.Logger(os.path.join(opts.outdir, "log.txt"))
    print("Launching processes...")
    loader_kwargs = dict(num_workers=1, prefetch_factor=2, multiprocessing_context=opts.workers)
    args = dict(outdir=os.path.abspath(opts.outdir), gpus=opts.gpus)
    args["loop"] = dict(
        G_kwargs=dnnlib.EasyDict(class_name="training.networks.Generator", z_dim=5, channels=4),
        D_kwargs=dnnlib.EasyDict(class_name="training.networks.Discriminator", channels=4),
        opt_kwargs=dnnlib.EasyDict(class_name="torch.optim.Adam", lr=0.002, betas=[0, 0.99], eps=1e-8),
        loader_kwargs=loader_kwargs,
    )
    torch.multiprocessing.set_start_method("spawn")
    with tempfile.TemporaryDirectory() as temp_dir:
        torch.multiprocessing.spawn(fn=subprocess_fn, args=(args, temp_dir), nprocs=opts.gpus)
    logger.close()


if __name__ == "__main__":
    main()
