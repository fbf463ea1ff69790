# ruff: noqa: C408 - as old scripts are written
import dnnlib
import numpy as np
import torch
from metrics import frechet
from torch_utils import misc, persistence, training_stats
from torch_utils.ops import conv2d_gradfix, grid_sample_gradfix


def training_loop(rank, num_gpus, G_kwargs, D_kwargs, opt_kwargs, loader_kwargs):
    torch.manual_seed(rank)
    conv2d_gradfix.enabled = True
    grid_sample_gradfix.enabled = True
    dataset = dnnlib.util.construct_class_by_name(class_name="training.dataset.Noise")
    sampler = misc.InfiniteSampler(dataset, rank=rank, num_replicas=num_gpus)
    loader = iter(torch.utils.data.DataLoader(dataset, sampler=sampler, batch_size=4, **loader_kwargs))
    G = dnnlib.util.construct_class_by_name(**G_kwargs)
    D = dnnlib.util.construct_class_by_name(**D_kwargs)
    for module in (G, D):
        for tensor in module.parameters():
            if num_gpus > 1:
                torch.distributed.broadcast(tensor.data, src=0)
    opts = {m: dnnlib.util.construct_class_by_name(m.parameters(), **opt_kwargs) for m in (G, D)}
    in_workers = []
    for _ in range(2):
        real, answers = next(loader)
        in_workers += [bool(flag.all()) for flag in answers]
        real = real.to(torch.float32).requires_grad_()
        fake = G(torch.randn(4, G.z_dim))
        with conv2d_gradfix.no_weight_gradients():
            (ppl,) = torch.autograd.grad(fake.square().sum(), [G.const], create_graph=True)
        training_stats.report("Loss/G", loss_G := torch.nn.functional.softplus(-D(fake)))
        step(G, opts[G], loss_G.mean() + 1e-4 * ppl.square().mean(), num_gpus)
        grid = torch.nn.functional.affine_grid(torch.eye(2, 3).expand(4, -1, -1) * 0.9, real.shape, align_corners=False)
        logits = D(grid_sample_gradfix.grid_sample(real, grid))
        (r1,) = torch.autograd.grad(logits.sum(), [real], create_graph=True)
        training_stats.report("Loss/r1", penalty := r1.square().sum([1, 2, 3]))
        step(D, opts[D], torch.nn.functional.softplus(-logits).mean() + penalty.mean(), num_gpus)
    z = torch.randn(4, G.z_dim)
    copy = persistence.round_trip(G)
    feats = [x.detach().flatten(1).numpy()[:, :6] for x in (real, G(z))]
    return dict(
        stats=training_stats.collect(), in_workers=all(in_workers), same=bool(torch.equal(copy(z), G(z))),
        fid=frechet.distance(*feats), ppl=frechet.trimmed_mean(np.arange(100.0)),
        weights=float(sum(p.double().sum() for p in G.parameters())),
    )  # fmt: skip


def step(module, opt, loss, num_gpus):
    opt.zero_grad(set_to_none=True)
    loss.backward()
    for param in module.parameters():
        if num_gpus > 1:
            torch.distributed.all_reduce(param.grad)
    opt.step()
