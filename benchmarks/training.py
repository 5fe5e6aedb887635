"""Training and attacks in images/s: ours, a plain PyTorch loop, the bare passes, and what the memory allows, in one run.

    python benchmarks/training.py                                             # the networks of the paper, real data
    python benchmarks/training.py --nets mnist/lenet5 --seconds 20 --threads 2

For each network, with SCE, batch 128:

* `train`, `train at`: `isce.train.fit` itself, in five turns with `bare`; the median counts, of about --seconds for each;
  `turns`: of all five. With --at-once also several of them side by side, in images/s together. To record a CUDA graph counts in neither.
* `plain loop`: what a tutorial does. torchvision's data set with its transforms (ToTensor, Normalize; on CIFAR-10 crop and
  flip), a DataLoader with --workers, standard modules in float32, Adam, `F.cross_entropy`, `loss.item()` every 100 steps.
  `plain loop, at` takes the same inner steps by `torch.autograd.grad`.
* `bare`: forward, backward and optimiser's step of one fixed batch on the device, our network and precision: no data, no
  schedule. `bare, at` adds the inner forward and backward passes.
* `floor`: what the memory moves at least, at the bandwidth measured here. One step reads and writes
  28 bytes per parameter (Adam: weight, gradient and two moments read, 16; weight and two moments written, 12) and, per image,
  5 b bytes for each output value of a layer that is a module (convolution, linear, normalising, pooling; the activations of the 8-layer
  CNN alone), b = 2 for bfloat16, else 4 (written and read forward; read, its gradient written and read backward). Caches hold small
  layers, so a CPU may beat it there.
* `arithmetic`: three times the multiply-adds of convolutions and linear layers (forward, gradient in the input, gradient
  in the weights), two operations each, at the rate of a square matrix product in the backbone's precision, of 2048 rows on a CPU
  and of 8192 on a GPU.
* `attack`: images/s of each attack of the tables on the committed or trained SCE model, beside `passes`: the same number of bare
  forward-backward passes of as many images. Images leave an attack at success, so it may be far faster than its passes.

LeNet-5 is bound by the dispatch of its small operations; ResNet-32 on a GPU by launches.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from isce import attacks, data, evaluate, methods, models, record, train

BATCH = 128


def clock(work: Callable[[], object], device: torch.device, seconds: float = 1.0) -> float:
    """Seconds of one call of `work`: the median over calls that take about `seconds` in all, after one that does not count."""
    times: list[float] = []
    work()
    while sum(times) < seconds or len(times) < 3:
        sync(device)
        start = time.perf_counter()
        work()
        sync(device)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def sync(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def standard(module: nn.Module) -> nn.Module:
    """The network with nothing of ours in it: nn.Conv2d and nn.MaxPool2d, contiguous, float32."""
    for name, child in module.named_children():
        if isinstance(child, models.MaxPool2x2):
            setattr(module, name, nn.MaxPool2d(2))
        elif isinstance(child, models.PixelConv2d):
            child.__class__ = nn.Conv2d
        else:
            standard(child)
    return module


def plain_loop(spec: train.Spec, device: torch.device, workers: int, seconds: float) -> float:
    """Images/s of a tutorial's loop over torchvision's data set, from its second step on."""
    from torchvision import datasets, transforms

    info = data.DATASETS[spec.dataset]
    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()] if info.augmented else []
    transform = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(info.mean, info.std)])
    kind = datasets.CIFAR10 if spec.dataset == "cifar10" else datasets.MNIST
    images = kind(str(record.data_dir()), train=True, transform=transform)
    loader = DataLoader(
        images, BATCH, shuffle=True, num_workers=workers, drop_last=True, pin_memory=device.type == "cuda"
    )
    classifier = standard(models.build_model(spec.dataset, spec.backbone, "sce"))
    model = (
        nn.Sequential(classifier.backbone, classifier.head).to(device, memory_format=torch.contiguous_format).train()
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    std = torch.tensor(info.std, device=device).view(-1, 1, 1)
    count, start = 0, 0.0
    for step, (x, y) in enumerate(loader):
        x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
        if methods.get(spec.method).adversarial:
            x = plain_adversary(model, x, y, std, spec.options["eps"], int(spec.options["steps"]))
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            loss.item()
        if step == 1:
            sync(device)
            start = time.perf_counter()
        elif step > 1:
            count += len(x)
            if step % 5 == 0:
                sync(device)
                if time.perf_counter() - start > seconds:
                    break
    sync(device)
    return count / (time.perf_counter() - start)


def plain_adversary(model: nn.Module, x: Tensor, y: Tensor, std: Tensor, eps: float, steps: int) -> Tensor:
    """L2 PGD on normalised images as a tutorial writes it (the ball is scaled by the deviation; [0, 1] is left out)."""
    delta = torch.zeros_like(x)
    for _ in range(steps):
        delta.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x + delta / std), y), delta)
        length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        delta = delta.detach() + 2.5 * eps / steps * gradient / length
        delta *= (eps / delta.flatten(1).norm(dim=1).clamp_min(1e-12)).clamp_max(1).view(-1, 1, 1, 1)
    return x + delta / std


def fitted(spec: train.Spec, split: data.Split, images: float) -> float:
    """Images/s of `isce.train.fit` over about so many images, of the split as often as it takes."""
    epochs = max(1, round(images / len(split)))
    part = split.take(slice(0, max(10, min(round(images), len(split)) // BATCH) * BATCH))
    seen = train.fit(
        spec.build().to(split.images.device), part, dataclasses.replace(spec, epochs=epochs), progress=False
    )
    return epochs * len(part) / float(seen["seconds"])


def rates(
    bare: Callable[[], object], spec: train.Spec, split: data.Split, seconds: float
) -> tuple[list[float], list[float]]:
    """Images/s of `isce.train.fit` and of `bare`, which takes BATCH of them, in five turns of each, about `seconds` for each.

    In turns, since a machine's speed drifts by more than the two differ.
    """
    own, others = [fitted(spec, split, 10 * BATCH)], []  # the first is the warm-up
    for _ in range(5):
        others.append(BATCH / clock(bare, split.images.device, seconds / 5))
        own.append(fitted(spec, split, own[-1] * seconds / 5))
    return own[1:], others


def beside(spec: train.Spec, split: data.Split, at_once: int, images: float) -> float:
    """Images/s of so many trainings together, side by side in threads as in `isce.train.train_all`, of about `images` in all: the sum
    of their own rates, so take enough that each trains for much longer than the others take to begin."""
    device = split.images.device

    def one(_: int) -> float:
        with train.own_stream(device):
            return fitted(spec, split, images / at_once)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(one, range(at_once)))  # the first time kernels are chosen
        return sum(pool.map(one, range(at_once)))


def layers(model: models.Classifier, x: Tensor) -> tuple[int, int]:
    """Of one image: the output values of all layers, and the multiply-adds of convolutions and linear layers."""
    values, products, hooks = 0, 0, []

    def count(module: nn.Module, _: object, out: Tensor) -> None:
        nonlocal values, products
        values += out[0].numel()
        if isinstance(module, nn.Conv2d):
            products += out[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            products += module.weight.numel()

    for module in model.modules():
        if not list(module.children()):
            hooks.append(module.register_forward_hook(count))
    with torch.no_grad():
        model.eval()(x[:2])
    for hook in hooks:
        hook.remove()
    return values, products


def bandwidth(device: torch.device) -> float:
    """Bytes/s read and written by a copy of 256 MiB."""
    source = torch.zeros(2**26, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / clock(lambda: target.copy_(source), device)


def arithmetic(device: torch.device, half: bool) -> float:
    """Floating-point operations/s of a square matrix product; on a GPU one that outlasts its launch by far."""
    rows = 2048 if device.type == "cpu" else 8192
    a = torch.randn(rows, rows, device=device, dtype=torch.bfloat16 if half else torch.float32)
    return 2 * rows**3 / clock(lambda: a @ a, device)


def measure(
    dataset: str, backbone: str, epochs: int | None, device: torch.device, args: argparse.Namespace
) -> list[dict]:
    rows: list[dict] = []

    def show(what: str, who: str, rate: float, **more: object) -> float:
        of = next((r["images_per_second"] for r in rows if r["what"] == what and r["who"] == "isce"), rate)
        row = {
            "net": f"{dataset}/{backbone}",
            "what": what,
            "who": who,
            "images_per_second": rate,
            "ours_over_this": of / rate,
        }
        rows.append(row | more)
        print(
            f"{row['net']:17} {what:16} {who:12} {rate:12,.0f} images/s   ours / this {of / rate:7.2f}  {more or ''}",
            flush=True,
        )
        return rate

    sets = data.load(dataset)
    split = sets.train.to(device)
    x, y = data.to_float(split.images[:BATCH]), split.labels[:BATCH]
    half = models.pays_in_half(backbone, dataset, device)
    for what, method in (("train", "sce"), ("train at", "at")):
        spec = train.Spec(dataset, backbone, method, epochs=1)
        model = models.arrange(spec.build().to(device), half).train()
        model.half_precision = half
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        inner = int(spec.options["steps"]) if method == "at" else 0

        def step(
            model: models.Classifier = model, optimizer: torch.optim.Optimizer = optimizer, inner: int = inner
        ) -> None:
            with attacks.common.held(model):  # as our inner steps: eval mode, no graph of the parameters
                for _ in range(inner):
                    leaf = x.clone().requires_grad_()
                    torch.autograd.grad(F.cross_entropy(model(leaf), y), leaf)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

        turns, bare = rates(step, spec, split, args.seconds)
        own = show(what, "isce", median(turns), precision="bfloat16" if half else "float32", turns=[*map(round, turns)])
        show(what, "bare", median(bare), turns=[*map(round, bare)])
        if args.at_once > 1:
            together = beside(spec, split, args.at_once, own * args.seconds * args.at_once)
            show(what, f"isce, {args.at_once} at once", together)
        show(what, "plain loop", plain_loop(spec, device, args.workers, args.seconds), workers=args.workers)
        if method == "sce":
            values, products = layers(model, x)
            weights = sum(p.numel() for p in model.parameters())
            moved = 28 * weights / BATCH + 5 * (2 if half else 4) * values
            show(
                what,
                "floor",
                bandwidth(device) / moved,
                bytes_per_image=round(moved),
                parameters=weights,
                values=values,
            )
            show(what, "arithmetic", arithmetic(device, half) / (6 * products), operations_per_image=6 * products)
    spec = train.Spec(dataset, backbone, "sce", epochs=epochs)
    if not train.known(spec):
        print(f"{dataset}/{backbone}: no SCE model of {spec.epochs} epochs in runs/ or results/, so no attacks")
        return rows
    model = train.load_or_train(spec, str(device))
    test = data.subset(sets.test, args.n).to(device)
    images, size = data.to_float(test.images), attacks.common.default_batch(test.images)

    def passes() -> None:
        for part in images.split(size):
            leaf = part.clone().requires_grad_()
            torch.autograd.grad(model(leaf).sum(), leaf)

    one = clock(passes, device)
    for name in evaluate.parse(args.attacks):
        levels = evaluate.default_levels(name, [args.eps], [0.2])
        start = time.perf_counter()
        frame = evaluate.evaluate(model, test, {name: levels}, queries=300)
        sync(device)
        rate = len(test) / (time.perf_counter() - start)
        robust = 100 * float(frame["correct"].mean())
        show(
            f"attack {name}",
            "isce",
            rate,
            eps=levels[0],
            accuracy=robust,
            n=len(test),
            passes_of_all=len(test) / one / rate,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Training and attacks in images/s, beside a plain loop and the floor.")
    nets = "mnist/lenet5,cifar10/cnn8,mnist/resnet32,cifar10/resnet32"
    parser.add_argument(
        "--nets", default=nets, help="data set/backbone, or with /epochs of the SCE model that is attacked"
    )
    parser.add_argument("--attacks", default="pgd_un_50,deepfool_50,simba,apgd_dlr,fab,autoattack")
    parser.add_argument("--eps", type=float, default=0.5, help="l2 radius of the attacks")
    parser.add_argument("--n", type=int, default=256, help="test images attacked")
    parser.add_argument("--seconds", type=float, default=10.0, help="about as long for each measured loop")
    parser.add_argument("--at-once", type=int, default=1, help="also this many trainings side by side, on a GPU")
    parser.add_argument("--workers", type=int, default=0, help="of the plain loop's DataLoader")
    parser.add_argument("--threads", type=int, default=None, help="of torch on the CPU")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    try:
        evaluate.parse(args.attacks)
        device = record.pick_device(args.device)
        parts = [(*net.split("/", 2), "", "")[:3] for net in args.nets.split(",")]
        specs = [train.Spec(block, net, "sce", epochs=int(epochs) if epochs else None) for block, net, epochs in parts]
    except ValueError as error:
        parser.error(str(error))
    if any(spec.dataset == "digits" for spec in specs):
        parser.error("the plain loop is torchvision's: want mnist or cifar10, not digits")
    if args.threads:
        torch.set_num_threads(args.threads)
    for (dataset, backbone, epochs), spec in zip(parts, specs, strict=True):
        start = time.perf_counter()
        rows = measure(dataset, backbone, spec.epochs if epochs else None, device, args)
        on = device.type if device.type != "cpu" else f"cpu-{torch.backends.cpu.get_cpu_capability().lower()}"
        path = record.results_dir() / "benchmarks" / f"training-{on}-{dataset}-{backbone}.json"
        source = record.provenance(device, "", time.perf_counter() - start, len(rows))
        record.write_json(path, {"settings": vars(args), "rows": rows, "provenance": source})
        print(path)


if __name__ == "__main__":
    main()
