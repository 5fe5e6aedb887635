"""Attacks side by side: ours, every installed peer, and the floor, on the same models and images, in one run.

    python benchmarks/attacks.py                                   # LeNet-5 on the embedded digits
    python benchmarks/attacks.py --dataset mnist --n 500 --threads 2
    python benchmarks/attacks.py --models resnet32/sce --n 32 --attacks pgd,deepfool

The floor replays ours: bare forward and backward passes through the model, of the same number, order and batch sizes,
and nothing else. Seconds over the floor are what an attack's own arithmetic costs. `result` is the accuracy in % (lower is
stronger), for minimal-norm attacks the median norm of the images right at first. Slow peers run on the first --slow-n
images; their row is to be compared with the one of ours on as many. Passes are calls of the model, images those rows summed.
The table is printed, and written to results/benchmarks/attacks-<dataset>-<models>-<attacks>.json,
with versions and machine.
"""

import argparse
import contextlib
import functools
import gc
import importlib.metadata
import io
import logging
import math
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from isce import attacks, data, record, train

PEERS = ("foolbox", "torchattacks", "adv-lib", "adversarial-robustness-toolbox")
KNOWN = ("pgd", "deepfool", "simba", "fab", "apgd", "square", "autoattack")
Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Passes:
    """Counts the model's passes by hooks: a list of [images, backward passes], one entry per forward pass."""

    def __init__(self, model: nn.Module) -> None:
        self.log: list[list[int]] = []
        self.handle = model.register_forward_hook(self._forward)

    def _forward(self, _: nn.Module, inputs: tuple, logits: Tensor) -> None:
        entry = [len(logits), 0]
        self.log.append(entry)
        if logits.requires_grad:
            logits.register_hook(lambda _: entry.__setitem__(1, entry[1] + 1))


class Memory(threading.Thread):
    """Peak memory in MiB above that at the start: the device's own count on CUDA, sampled from /proc on the CPU."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(daemon=True)
        self.device, self.done, self.top = device, threading.Event(), 0
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.base = torch.cuda.memory_allocated(device)
        else:
            self.base = self._resident()
            self.start()

    def _resident(self) -> int:
        statm = Path("/proc/self/statm")
        return int(statm.read_text().split()[1]) * 4096 if statm.exists() else 0

    def run(self) -> None:
        while not self.done.wait(0.01):
            self.top = max(self.top, self._resident())

    def peak(self) -> float:
        self.done.set()
        top = (
            torch.cuda.max_memory_allocated(self.device)
            if self.device.type == "cuda"
            else max(self.top, self._resident())
        )
        return (top - self.base) / 2**20


def replay(model: nn.Module, x: Tensor, log: list[list[int]]) -> None:
    """The floor: the same passes with the same batch sizes, and nothing else."""
    for size, backwards in log:
        z = x[:size].detach().requires_grad_(backwards > 0)
        with torch.set_grad_enabled(backwards > 0):
            logits = model(z)
        for k in range(backwards):
            torch.autograd.grad(logits[:, k % logits.shape[1]].sum(), z, retain_graph=k + 1 < backwards)


def measure(run: Callable[[], Tensor | None], device: torch.device, repeats: int) -> tuple[Tensor | None, float]:
    """(result, least seconds of `repeats` runs)."""
    seconds = []
    for _ in range(repeats):
        torch.manual_seed(0)
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            out = run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return out, min(seconds)


def peers(model: nn.Module, device: torch.device, shape: tuple[int, ...]) -> dict[str, types.SimpleNamespace]:
    """The installed peers, their modules and wrapped models."""
    found: dict[str, types.SimpleNamespace] = {}
    with contextlib.suppress(ImportError):
        import foolbox

        found["foolbox"] = types.SimpleNamespace(
            a=foolbox.attacks, m=foolbox.PyTorchModel(model, (0, 1), device=device)
        )
    with contextlib.suppress(ImportError):
        import torchattacks

        found["torchattacks"] = types.SimpleNamespace(a=torchattacks)
    with contextlib.suppress(ImportError):
        sys.modules.setdefault("visdom", types.SimpleNamespace(Visdom=object))  # type: ignore[arg-type]
        from adv_lib import attacks as adv

        found["adv-lib"] = types.SimpleNamespace(a=adv)
    with contextlib.suppress(ImportError):
        from art.attacks import evasion
        from art.estimators.classification import PyTorchClassifier

        kind = "gpu" if device.type == "cuda" else "cpu"
        wrap = functools.partial(PyTorchClassifier, loss=nn.CrossEntropyLoss(), input_shape=shape, nb_classes=10,
                                 clip_values=(0, 1), device_type=kind)  # fmt: skip
        found["art"] = types.SimpleNamespace(
            a=evasion, logits=wrap(model), probs=wrap(nn.Sequential(model, nn.Softmax(1)))
        )
    return found


def contests(model: nn.Module, device: torch.device, x: Tensor, args: argparse.Namespace) -> Iterator[tuple]:
    """(attack, setting, "accuracy" or "norm", {who: (attack function, is it slow)})."""
    p = peers(model, device, tuple(x.shape[1:]))
    fb, ta, adv, art = (p.get(name) for name in ("foolbox", "torchattacks", "adv-lib", "art"))
    steps, big, mid = args.steps, args.eps * 3, args.eps

    def pgd(eps: float) -> dict[str, tuple[Attack, bool]]:
        rows: dict[str, tuple[Attack, bool]] = {
            "ours": (lambda m, x, y: attacks.pgd(m, x, y, eps=eps, steps=steps), False)
        }
        if fb:
            attack = fb.a.L2PGD(steps=steps, rel_stepsize=2.5 / steps)
            rows["foolbox"] = lambda m, x, y: attack(fb.m, x, y, epsilons=eps)[1], False
        if ta:
            pgd_ta = ta.a.PGDL2(model, eps=eps, alpha=2.5 * eps / steps, steps=steps)
            rows["torchattacks"] = lambda m, x, y: pgd_ta(x, y), False
        if art:
            attack_art = art.a.ProjectedGradientDescentPyTorch(art.logits, norm=2, eps=eps, eps_step=2.5 * eps / steps,
                max_iter=steps, batch_size=len(x), verbose=False, num_random_init=1)  # fmt: skip
            rows["art"] = (
                lambda m, x, y: torch.from_numpy(attack_art.generate(x.cpu().numpy(), y.cpu().numpy())).to(x),
                False,
            )
        return rows

    if "pgd" in args.attacks:
        yield "pgd", f"{steps} steps, eps 1e-4: all stay", "accuracy", pgd(1e-4)
        yield "pgd", f"{steps} steps, eps {mid:g}", "accuracy", pgd(mid)
        yield "pgd", f"{steps} steps, eps {big:g}: most fall", "accuracy", pgd(big)
    if "deepfool" in args.attacks:
        rows: dict[str, tuple[Attack, bool]] = {"ours": (lambda m, x, y: attacks.deepfool(m, x, y), False)}
        if adv:
            rows["adv-lib"] = lambda m, x, y: adv.a.df(m, x, y, steps=50), False
        if fb:
            deepfool_fb = fb.a.L2DeepFoolAttack(steps=50)
            rows["foolbox"] = lambda m, x, y: deepfool_fb(fb.m, x, y, epsilons=None)[1], False
        if art:
            deepfool_art = art.a.DeepFool(art.logits, max_iter=50, epsilon=0.02, batch_size=len(x), verbose=False)
            rows["art"] = lambda m, x, y: torch.from_numpy(deepfool_art.generate(x.cpu().numpy())).to(x), True
        if ta:
            deepfool_ta = ta.a.DeepFool(model, steps=50)
            rows["torchattacks"] = lambda m, x, y: deepfool_ta(x, y), True
        yield "deepfool", "50 steps", "norm", rows
    if "simba" in args.attacks:
        q = args.queries
        rows = {"ours": (lambda m, x, y: attacks.simba(m, x, y, queries=q, step_size=0.2), False)}
        if art:  # two queries for each of its iterations
            simba_art = art.a.SimBA(art.probs, attack="px", max_iter=q // 2, epsilon=0.2, order="random", verbose=False)

            def run_art(m: nn.Module, x: Tensor, y: Tensor) -> Tensor:
                return torch.from_numpy(
                    simba_art.generate(x.cpu().numpy(), nn.functional.one_hot(y, 10).cpu().numpy())
                ).to(x)

            rows["art"] = run_art, True
        yield "simba", f"{q} queries", "accuracy", rows
    if "fab" in args.attacks:
        rows = {"ours": (lambda m, x, y: attacks.fab(m, x, y, steps=20), False)}
        if adv:
            nine = functools.partial(adv.a.fab, norm=2, n_iter=20, targeted_restarts=True, restarts=9)
            rows["adv-lib"] = lambda m, x, y: nine(m, x, y), False
        yield "fab", "20 steps, 9 targets", "norm", rows
    if "apgd" in args.attacks:
        rows = {"ours": (lambda m, x, y: attacks.apgd(m, x, y, eps=mid), False)}
        if adv:
            rows["adv-lib"] = lambda m, x, y: adv.a.apgd(m, x, y, mid, norm=2, n_iter=100, loss_function="ce"), False
        if ta:
            apgd_ta = ta.a.APGD(model, norm="L2", eps=mid, steps=100, seed=0)
            rows["torchattacks"] = lambda m, x, y: apgd_ta(x, y), False
        yield "apgd", f"100 steps, ce, eps {mid:g}", "accuracy", rows
        rows = {"ours": (lambda m, x, y: attacks.apgd_targeted(m, x, y, eps=mid), False)}
        if adv:
            rows["adv-lib"] = lambda m, x, y: adv.a.apgd_targeted(m, x, y, mid, norm=2, n_iter=100), False
        if ta:
            apgdt_ta = ta.a.APGDT(model, norm="L2", eps=mid, steps=100, seed=0)
            rows["torchattacks"] = lambda m, x, y: apgdt_ta(x, y), False
        yield "apgd_t", f"100 steps, 9 targets, eps {mid:g}", "accuracy", rows
    if "square" in args.attacks:
        rows = {"ours": (lambda m, x, y: attacks.square(m, x, y, eps=mid, queries=1000), False)}
        if ta:
            square_ta = ta.a.Square(model, norm="L2", eps=mid, n_queries=1000, loss="margin", seed=0)
            rows["torchattacks"] = lambda m, x, y: square_ta(x, y), False
        yield "square", f"1000 queries, eps {mid:g}", "accuracy", rows
    if "autoattack" in args.attacks:
        rows = {"ours": (lambda m, x, y: attacks.autoattack(m, x, y, eps=mid), False)}
        if ta:  # its APGD and FAB take 10 steps by default, the published attack and ours 100
            auto_ta = ta.a.AutoAttack(model, norm="L2", eps=mid, seed=0)
            for part in auto_ta._autoattack.attacks[:3]:
                part.steps = 100
            rows["torchattacks"] = lambda m, x, y: auto_ta(x, y), False
        yield "autoattack", f"100 steps, 5000 queries, eps {mid:g}", "accuracy", rows


def compare(model: nn.Module, name: str, x: Tensor, y: Tensor, args: argparse.Namespace) -> list[dict]:
    """One model's rows."""
    device, rows = x.device, []
    with torch.no_grad():
        clean = model(x).argmax(1) == y
    for attack, setting, kind, entries in contests(model, device, x, args):
        slow_n = min(args.slow_n, len(x))
        runs = [(who, f, slow_n if slow and slow_n < len(x) else len(x)) for who, (f, slow) in entries.items()]
        if any(n < len(x) for _, _, n in runs):
            runs.append(("ours", entries["ours"][0], slow_n))
        base: dict[int, float] = {}
        for who, f, n in sorted(runs, key=lambda run: (-run[2], run[0] != "ours")):
            images, labels = x[:n], y[:n]
            memory, passes = Memory(device), Passes(model)
            out, seconds = measure(lambda: f(model, images, labels), device, 1)  # noqa: B023
            peak = memory.peak()
            passes.handle.remove()
            repeats = args.repeats if seconds < 10 else 0  # long runs are steady enough
            if repeats:  # again without hooks, and once more for a warm cache
                seconds = min(seconds, measure(lambda: f(model, images, labels), device, repeats)[1])  # noqa: B023
            if who == "ours":
                base[n] = seconds
            assert out is not None
            with torch.no_grad():
                wrong = model(out).argmax(1) != labels
            norms = torch.where(wrong, (out.detach() - images).flatten(1).norm(dim=1), torch.inf)[clean[:n]]
            result = norms.median().item() if kind == "norm" else 100 - 100 * wrong.float().mean().item()
            row = {"model": name, "attack": attack, "setting": setting, "who": who, "n": n, "seconds": seconds,
                   "to_ours": seconds / base[n], "per_image_to_ours": seconds / n / (base[len(x)] / len(x)), "kind": kind,
                   "result": result if math.isfinite(result) else None, "forward": len(passes.log),
                   "forward_images": sum(size for size, _ in passes.log), "backward": sum(b for _, b in passes.log),
                   "backward_images": sum(size * b for size, b in passes.log), "peak_mib": peak}  # fmt: skip
            rows.append(row)
            show(row)
            if who == "ours":
                memory = Memory(device)
                seconds = measure(lambda: replay(model, images, passes.log), device, repeats + 1)[1]  # noqa: B023
                rows.append(row | {"who": "floor", "seconds": seconds, "to_ours": seconds / base[n], "result": None,
                                   "peak_mib": memory.peak()})  # fmt: skip
                show(rows[-1])
    return rows


def show(row: dict) -> None:
    result = (
        "" if row["result"] is None else f"{row['result']:.4f}" if row["kind"] == "norm" else f"{row['result']:.1f} %"
    )
    per_image = f"(x{row['per_image_to_ours']:.1f} an image)" if row["per_image_to_ours"] != row["to_ours"] else ""
    print(
        f"{row['model']:14} {row['attack']:10} {row['setting']:28} {row['who']:26} n {row['n']:<5} {row['seconds']:8.2f} s"
        f"  x{row['to_ours']:<6.2f} {per_image:18} {result:>9}  fwd {row['forward']:>6} ({row['forward_images']:>8})"
        f"  bwd {row['backward']:>5} ({row['backward_images']:>7})"
        f"  {row['seconds'] / row['forward_images'] * 1e6:7.1f} us a pass  {row['peak_mib']:6.1f} MiB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Attacks side by side with peers and the floor.")
    parser.add_argument("--dataset", default="digits", choices=("digits", "mnist", "cifar10"))
    parser.add_argument("--models", default="lenet5/sce,lenet5/isce", help="backbone/method, several by commas")
    parser.add_argument("--epochs", type=int, default=None, help="of training, where the model is not in runs/ yet")
    parser.add_argument("--attacks", default=",".join(KNOWN))
    parser.add_argument("--n", type=int, default=200, help="test images")
    parser.add_argument("--slow-n", type=int, default=20, help="images for peers that go image by image")
    parser.add_argument("--eps", type=float, default=1.0, help="l2 radius at which part of the images fall")
    parser.add_argument("--steps", type=int, default=50, help="of PGD")
    parser.add_argument("--queries", type=int, default=300, help="of SimBA")
    parser.add_argument(
        "--repeats", type=int, default=2, help="further runs of each, without counting; the least time counts"
    )
    parser.add_argument("--threads", type=int, default=None, help="of torch on the CPU")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    try:
        args.attacks = [record.choose("attack", name, KNOWN) for name in args.attacks.split(",")]
        nets = [(name, *name.partition("/")[::2]) for name in args.models.split(",")]
        specs = {
            name: train.Spec(args.dataset, backbone, method, epochs=args.epochs) for name, backbone, method in nets
        }
        device = record.pick_device(args.device)
    except ValueError as error:
        parser.error(str(error))
    if args.threads:
        torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    rows, start = [], time.perf_counter()
    test = data.subset(data.load(args.dataset).test, args.n)
    x, y = data.to_float(test.images).to(device), test.labels.to(device)
    for name, spec in specs.items():
        model = train.load_or_train(spec, args.device).eval()
        model.requires_grad_(False)  # no peer pays for gradients of the weights
        rows += compare(model, name, x, y, args)
    versions = {}
    for package in (*PEERS, "torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    content = {
        "settings": vars(args), "threads": torch.get_num_threads(), "versions": versions, "rows": rows,
        "provenance": record.provenance(device, "", time.perf_counter() - start, len(x)),
    }  # fmt: skip
    chosen = "_".join(args.attacks)
    name = f"attacks-{args.dataset}-{args.models}-{chosen}.json".replace("/", "-").replace(",", "_")
    path = record.results_dir() / "benchmarks" / name
    record.write_json(path, content)
    print(path)


if __name__ == "__main__":
    main()
