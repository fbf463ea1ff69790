# ruff: noqa: C408, NPY002 - as old scripts are written
"""Our own stand-in for a script that takes a GPU for granted, as the official ones do, in everything that it does."""

import argparse
import json
import os
import tempfile
import threading

import dnnlib
import numpy as np
import torch
from torch_utils import misc, training_stats
from torch_utils.ops import conv2d_gradfix


def subprocess_fn(rank, args, temp_dir):
    if args["gpus"] > 1:
        init = "file://" + os.path.join(temp_dir, ".rendezvous")
        torch.distributed.init_process_group(
            backend="nccl", init_method=init, rank=rank, world_size=args["gpus"]
        )
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    training_stats.init_multiprocessing(rank, device if args["gpus"] > 1 else None)
    result = loop(rank, device, **args)
    with open(f"{args['outdir']}/rank{rank}.json", "w") as f:
        json.dump(result, f)


def loop(rank, device, gpus, outdir):
    np.random.seed(rank)
    torch.manual_seed(rank)
    torch.cuda.manual_seed_all(rank)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = False
    conv2d_gradfix.enabled = True
    dataset = dnnlib.util.construct_class_by_name(class_name="training.dataset.Noise")
    sampler = misc.InfiniteSampler(dataset, rank=rank, num_replicas=gpus)
    loader = iter(torch.utils.data.DataLoader(dataset, sampler=sampler, batch_size=4, pin_memory=True, num_workers=1))
    G = dnnlib.util.construct_class_by_name(class_name="training.networks.Generator", z_dim=5, channels=4)
    D = dnnlib.util.construct_class_by_name(class_name="training.networks.Discriminator", channels=4)
    G.train().requires_grad_(False).to(device)
    D.cuda(device)
    ddp = torch.nn.parallel.DistributedDataParallel(D, device_ids=[device]) if gpus > 1 else torch.nn.DataParallel(D)
    opt = torch.optim.Adam(D.parameters(), lr=0.002, betas=[0, 0.99])
    scaler = torch.cuda.amp.GradScaler()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    noise = torch.Generator(device=device).manual_seed(5)
    side = torch.cuda.Stream()
    for _ in range(2):
        start.record(torch.cuda.current_stream())
        real, _ = next(loader)
        real = real.to(device, non_blocking=True).to(torch.float32)
        z = torch.randn([4, G.z_dim], device=device, generator=noise)
        with torch.cuda.stream(side), torch.cuda.device(rank), torch.cuda.amp.autocast():
            fake = G(z).cuda(non_blocking=True)
        side.wait_stream(torch.cuda.current_stream())
        loss = torch.nn.functional.softplus(ddp(fake)) + torch.nn.functional.softplus(-ddp(real))
        training_stats.report("Loss/D", loss)
        scaler.scale(loss.mean()).backward()
        scaler.step(opt)
        scaler.update()
        opt.zero_grad(set_to_none=True)
        end.record()
    end.synchronize()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) / 2**30
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.empty_cache()
    if gpus > 1:
        torch.distributed.barrier(device_ids=[rank])
    seen = []
    thread = threading.Thread(target=lambda: seen.append(torch.zeros(1, device="cuda").device == device))
    thread.start()
    thread.join()
    staging = torch.empty([4, 3], pin_memory=True)
    kept = [torch.zeros(2, device=device), torch.ones(1, device="cuda:0"), torch.full([1], 2.0, device=rank)]
    path = os.path.join(outdir, f"kept{rank}.pt")
    torch.save(dict(kept=kept, device=device), path)
    back = torch.load(path, map_location=f"cuda:{rank}")
    return dict(
        ms=start.elapsed_time(end), gpumem=peak, loss=training_stats.collect()["Loss/D"], thread=seen,
        same=all(x.device == device for x in (z, staging.pin_memory(), *back["kept"])) and back["device"] == device,
        weights=float(sum(p.double().sum() for p in D.parameters())), noise=noise.initial_seed(),
        is_device=isinstance(device, torch.device), name=torch.cuda.get_device_name(device),
        float_type=torch.cuda.FloatTensor([1.5]).type(), moved=torch.nn.Linear(2, 2).to(rank).weight.is_cuda,
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--outdir", required=True)
    parser.add_argument("--gpus", type=int, required=True)
    opts = parser.parse_args()
    args = dict(outdir=os.path.abspath(opts.outdir), gpus=opts.gpus)
    with tempfile.TemporaryDirectory() as temp_dir:
        if opts.gpus == 1:
            subprocess_fn(0, args, temp_dir)
        else:
            torch.multiprocessing.set_start_method("spawn")
            torch.multiprocessing.spawn(fn=subprocess_fn, args=(args, temp_dir), nprocs=opts.gpus)


if __name__ == "__main__":
    main()
