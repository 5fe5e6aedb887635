"""Training: one recipe for every method, resumable after a kill, and a record of what happened.

`load_or_train(spec)` is the whole interface: it returns the trained classifier from runs/ or trains it there.
"""

import copy
import dataclasses
import shutil
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from threading import Lock, local
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from isce import as_coded, data, methods, record
from isce.attacks import random
from isce.attacks.common import differentiable, held, whole
from isce.attacks.norms import project, random_in_ball, steepest
from isce.data import DATASETS
from isce.losses import softmax_cross_entropy
from isce.models import BACKBONES, Classifier, arrange, build_model, computing, pays_compiled, pays_in_half

VERSION = 2  # of everything that shapes a trained model; raise it when training changes, and every run is another

Number = float | Tensor
Gradients = Callable[..., tuple[Tensor, Tensor]]

EPOCHS = {"digits": 15, "mnist": 20, "cifar10": 60}  # ours; the paper states none


@dataclass(frozen=True)
class Spec:
    """What is trained. Two equal specs are the same run; `seed` draws the weights, the order and the augmentation.

    Attributes:
        dataset: digits, mnist, cifar10. backbone: lenet5, cnn8, resnet32. method: one of the nine, or a control.
        epochs: passes over the training images; the data set's default if None.
        embedding_dim: width of an embedding layer before the head; none if None.
        options: the method's own settings where they differ from the defaults, such as {"s": 1.2}.
        arm: "B", as the paper is written, or "A", as its authors' script is coded (isce.as_coded).

    Raises:
        ValueError, TypeError: on construction, for a wrong name, type or value.
    """

    dataset: str
    backbone: str
    method: str
    seed: int = 0
    epochs: int | None = None
    embedding_dim: int | None = None
    options: dict[str, float] = dataclasses.field(default_factory=dict, hash=False)
    arm: str = "B"

    def __post_init__(self) -> None:
        record.choose("data set", self.dataset, DATASETS)
        record.choose("backbone", self.backbone, BACKBONES)
        record.choose("arm", self.arm, ("A", "B"))
        for name in ("seed", "epochs", "embedding_dim"):
            value, least = getattr(self, name), 0 if name == "seed" else 1
            if value is None and name != "seed":
                continue
            if not whole(value):
                raise TypeError(f"{name} must be a whole number, got {value!r}")
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
            object.__setattr__(self, name, int(value))
        method = methods.get(self.method)
        # Equal settings are one run, however they were spelled.
        object.__setattr__(self, "options", method.settings(self.dataset, self.options))
        object.__setattr__(self, "epochs", self.epochs or EPOCHS[self.dataset])
        as_coded_too = self.method in ("isce", "sce") and (self.backbone, self.embedding_dim) == ("resnet32", None)
        if self.arm == "A" and not as_coded_too:
            raise ValueError(
                "arm A exists for isce, and sce beside it, on backbone resnet32 without an embedding (isce.as_coded)"
            )

    def trained(self) -> "Spec":
        """The spec whose weights this one uses: Random is an SCE model with another inference."""
        shared = methods.get(self.method).trained_as
        return self if shared is None else dataclasses.replace(self, method=shared, options={})

    def surrogate(self) -> "Spec":
        """The SCE model of the same network and seed, from which attacks are transferred."""
        return dataclasses.replace(self, method="sce", options={}, arm="B")

    def payload(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "version": VERSION}

    @cached_property
    def run_id(self) -> str:
        embedded = f"-{self.embedding_dim}d" if self.embedding_dim else ""
        arm = "" if self.arm == "B" else "-as-coded"
        name = f"{self.dataset}-{self.backbone}-{self.method}{embedded}{arm}-seed{self.seed}"
        return f"{name}-{record.run_id(self.payload())}"

    @property
    def folder(self) -> Path:
        return record.runs_dir() / self.run_id

    def build(self) -> Classifier:
        if self.arm == "A":
            return as_coded.build(self.dataset, self.method, self.seed, **self.options)
        return build_model(
            self.dataset, self.backbone, self.method, embedding_dim=self.embedding_dim, seed=self.seed, **self.options
        )


def accuracy(model: nn.Module, split: data.Split, batch_size: int = 1000) -> float:
    """Share of right decisions in eval mode, in %. Images (N, C, H, W) on the model's device, uint8 or floats in [0, 1]."""
    with held(model), torch.no_grad():
        right = [
            (model(data.to_float(x) if x.dtype == torch.uint8 else x).argmax(1) == y).sum()
            for x, y in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True)
        ]
    return 100 * int(torch.stack(right).sum()) / len(split)


def load_or_train(spec: Spec, device: str = "auto", progress: bool = True) -> Classifier:
    """The classifier of `spec` in eval mode: from its run folder, else from the committed results/, else trained first.

    device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N". An interrupted training resumes from its last finished epoch,
    or from the committed checkpoint where that is further. A folder whose weights are damaged is trained anew,
    with one line that says so. Another process training the same run is waited for.

    Raises:
        TypeError, ValueError: no `Spec`; no such device. FileNotFoundError and the like: no data set, and none to be downloaded.
        FloatingPointError: the loss is no longer finite.
    """
    if not isinstance(spec, Spec):
        raise TypeError(f"spec must be a train.Spec, got {spec!r}")
    place = record.pick_device(device)
    own = spec.trained()
    model = spec.build().to(place)
    weights = _weights_in(own.folder)
    if weights is None:  # only who makes something needs to be allowed to write
        with record.lock(own.folder):
            weights = _weights_in(own.folder)
            if weights is None:
                _clear_damaged(own.folder)
                if not _fetch_published(own):
                    _train(own, place, progress)
                weights = _weights_in(own.folder)
        if weights is None:
            raise RuntimeError(f"{own.folder} does not hold what was just written: is the disk full or failing?")
    model.load_state_dict(weights)
    return arrange(model).eval()


_THREAD = local()
STREAMS = 32  # that PyTorch has on a GPU


def _stream(device: torch.device, use: str) -> torch.cuda.Stream:
    """This thread's CUDA stream for one use, always the same: PyTorch deals out its `STREAMS` in turn, so that with a new one for
    every training two threads could come to share one."""
    streams = vars(_THREAD).setdefault("streams", {})
    if (device, use) not in streams:
        streams[device, use] = torch.cuda.Stream(device)
    return streams[device, use]


def own_stream(device: torch.device) -> AbstractContextManager[Any]:
    """A CUDA stream for what one thread does inside the block; on a CPU nothing."""
    return torch.cuda.stream(_stream(device, "training")) if device.type == "cuda" else nullcontext()


def train_all(
    specs: Iterable[Spec],
    device: str = "auto",
    progress: bool = True,
    at_once: int = 1,
    more: Callable[[], bool] = lambda: True,
) -> None:
    """`load_or_train` each of `specs`, `at_once` of them side by side: the same models as one after the other.

    A small network leaves most of a large GPU idle. Here each training has a thread and a CUDA stream of its own, so that
    their kernels share the GPU; those of several processes would take turns. On a CPU one training uses all of torch's threads.
    `progress`: a bar of epochs for each; one of networks is there in any case, where there are several.
    `more`: asked before each training; once it says no, none is begun.

    Raises:
        ValueError: at_once < 1, or on a GPU more than it has streams for. A training that fails, or an interrupt, stops those that
            have not begun, and raises after those under way.
    """
    if at_once < 1:
        raise ValueError(f"at_once must be at least 1, got {at_once}")
    place = record.pick_device(device)
    if place.type == "cuda" and at_once > STREAMS // 2:  # each takes two (`_stream`)
        raise ValueError(f"at_once must be at most {STREAMS // 2} on a GPU, got {at_once}")
    wanted = {spec.trained().run_id: spec for spec in specs}.values()

    def one(spec: Spec) -> None:
        if more():
            with own_stream(place) if at_once > 1 else nullcontext():
                load_or_train(spec, device, progress)

    bar = partial(tqdm, total=len(wanted), disable=len(wanted) < 2, leave=False, mininterval=1, unit="network")
    if at_once == 1:
        for spec in bar(wanted):
            one(spec)
        return
    with ThreadPoolExecutor(at_once) as pool:
        try:
            for done in bar(as_completed([pool.submit(one, spec) for spec in wanted])):
                done.result()
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            record.log(
                f"isce: {type(error).__name__}: stops after the trainings under way; a kill loses their last epoch alone"
            )
            raise


def result(spec: Spec) -> dict[str, Any] | None:
    """The training record of `spec` (schema in README.md), or None if it has not been trained."""
    return record.read_json(spec.trained().folder / "result.json")


def known(spec: Spec) -> bool:
    """Whether `load_or_train` finds the weights of `spec`, in runs/ or published, and need not train."""
    spec = spec.trained()
    return _trained_in(spec.folder) is not None or _published(spec) is not None


def weights_of(spec: Spec) -> str | None:
    """The checksum of the weights of `spec` that are here, or None if it has not been trained here."""
    return (result(spec) or {}).get("weights_sha256")


def same_weights(done: dict[str, Any], here: dict[str, str | None]) -> bool:
    """Whether a record is of no other weights than those `here`, if any, by the keys under which it states them."""
    return all(own is None or done.get(key, own) == own for key, own in here.items())


def write_measures(spec: Spec, kind: str, measured: dict[str, Any], n: int, device: torch.device) -> None:
    """Keep numbers measured over n test images as <kind>.json in the run of `spec`; of equal weights, the last ones stay."""
    source = record.provenance(device, DATASETS[spec.dataset].sha256, 0.0, n)
    content = {"kind": kind, "spec": spec.payload(), "n": n, "provenance": source}
    content["weights_sha256"] = weights_of(spec)
    record.write_json(spec.folder / f"{kind}.json", content | measured)


def measures(spec: Spec, kind: str) -> dict[str, Any] | None:
    """What `write_measures` kept, in runs/ or results/; not of other weights than those that are here, if any."""
    own, path = {"weights_sha256": weights_of(spec)}, spec.folder / f"{kind}.json"
    found = (record.read_json(place) for place in (path, record.committed(path)))
    return next((done for done in found if done and same_weights(done, own)), None)


def _trained_in(folder: Path) -> dict[str, Any] | None:
    """The training record in a run's folder, where its weights lie beside it, whole."""
    done, weights = record.read_json(folder / "result.json"), folder / "model.safetensors"
    there = done is not None and weights.is_file() and record.sha256(weights) == done.get("weights_sha256")
    return done if there else None


def _weights_in(folder: Path) -> dict[str, Tensor] | None:
    return load_file(folder / "model.safetensors") if _trained_in(folder) is not None else None


def _clear_damaged(folder: Path) -> None:
    """Of a run whose weights are lost, take away what was made of them."""
    if record.read_json(folder / "result.json") is None:
        return
    record.log(f"isce: the weights in {folder.name} are missing or damaged: they will be made again")
    for other in folder.iterdir():  # attacks state the weights that they are of, and are checked by them
        if other.name.startswith("."):
            continue  # a lock, or what another process is writing
        if other.is_file():
            other.unlink()
        elif other.name != "attacks":
            shutil.rmtree(other)


def _published(spec: Spec) -> dict[str, Any] | None:
    """The committed training record of `spec`, where its weights lie beside it."""
    return _trained_in(record.results_dir() / spec.run_id)


def _fetch_published(spec: Spec) -> bool:
    """Copy the committed model of `spec` from results/ to runs/, weights before record; False where there is none."""
    if (done := _published(spec)) is None:
        return False
    with record.atomic(spec.folder / "model.safetensors") as part:
        shutil.copyfile(record.results_dir() / spec.run_id / "model.safetensors", part)
    record.write_json(spec.folder / "result.json", done)
    return True


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What a checkpoint holds; an error, of many kinds, where it is damaged: torch itself does not look at its checksums."""
    with zipfile.ZipFile(path) as parts:
        if damaged := parts.testzip():
            raise ValueError(f"{damaged} is damaged")
    return torch.load(path, weights_only=True, map_location=device)


NOT_DAMAGE = (OSError, MemoryError, torch.OutOfMemoryError)  # what may keep a sound file from being read


def epochs_in(checkpoint: Path, run_id: str) -> int:
    """How many epochs of a run are done in a checkpoint; 0 where it is not there, damaged, or of another run."""
    if not checkpoint.is_file():
        return 0
    try:
        state = read_checkpoint(checkpoint)
        return len(state["history"]["loss"]) if state["run_id"] == run_id else 0
    except NOT_DAMAGE:
        raise
    except Exception:  # a damaged file fails in many ways
        return 0


def _fetch_begun(spec: Spec, checkpoint: Path) -> None:
    """Go on from the committed checkpoint of `spec`, where there is one of more epochs than here."""
    begun = record.committed(checkpoint)
    done = epochs_in(begun, spec.run_id)
    if not done or done <= epochs_in(checkpoint, spec.run_id):
        return
    try:
        with record.atomic(checkpoint) as part:
            shutil.copyfile(begun, part)
        record.log(f"isce: {spec.run_id} goes on from the {done} epochs that results/ has of it")
    except OSError as error:
        record.log(f"isce: {begun} cannot be copied ({error}): training without it")


def as_half(tensor: Tensor) -> Tensor:
    """`tensor` in float16 on the CPU; as it is where float16 cannot hold it."""
    half = tensor.half() if tensor.is_floating_point() else tensor
    return (half if bool(half.isfinite().all()) else tensor).contiguous().cpu()


def round_to_half(model: nn.Module) -> dict[str, Tensor]:
    """The state of `model` in float16, and the model itself rounded to it: so the stored file is exactly what is evaluated, at half
    the size."""
    state = {name: as_half(tensor) for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)
    return state


def _train(spec: Spec, device: torch.device, progress: bool) -> None:
    if progress:
        record.log(f"isce: {spec.run_id} is trained here: neither runs/ nor results/ have its weights")
    train, validation, test = (split.to(device) for split in data.kept(spec.dataset))
    model = spec.build().to(device)
    if spec.arm == "A":
        as_coded.set_pixel_mean(model, train.images)
    checkpoint = spec.folder / "checkpoint.pt"
    _fetch_begun(spec, checkpoint)
    history = fit(model, train, spec, checkpoint, progress)
    with record.atomic(spec.folder / "model.safetensors") as part:
        save_file(round_to_half(model), part)
    weights = record.sha256(spec.folder / "model.safetensors")
    batch_size = as_coded.BATCH if spec.arm == "A" else 1000
    test_accuracy = accuracy(model, test, batch_size)
    record.write_json(
        spec.folder / "result.json",
        {
            "kind": "train",
            "run_id": spec.run_id,
            "spec": spec.payload(),
            "metrics": {
                "test_accuracy": test_accuracy,
                "test_interval": record.wilson(round(test_accuracy * len(test) / 100), len(test)),
                "test_n": len(test),
                "validation_accuracy": accuracy(model, validation, batch_size),
                "validation_n": len(validation),
                "train_loss": history["loss"],
            },
            "weights_sha256": weights,
            "provenance": record.provenance(
                device, DATASETS[spec.dataset].sha256, history["seconds"], len(train) * len(history["loss"])
            )
            | {"precision": history["precision"], "device_name": history["machine"]},
        },
    )
    checkpoint.unlink(missing_ok=True)
    former = record.read_json(record.results_dir() / spec.run_id / "result.json")
    if former is not None and former.get("weights_sha256") != weights:
        record.log(
            f"isce: {spec.run_id}: not the weights that results/ has records of (another processor or version trained those): "
            "attacks committed there do not count beside those on the new ones"
        )


def fit(
    model: Classifier, train: data.Split, spec: Spec, checkpoint: Path | None = None, progress: bool = True
) -> dict[str, Any]:
    """Train `model` in place; the same recipe for every method.

    Adam, batch 128, learning rate 1e-3 rising to 3e-3 and falling to 0 (one cycle, in which beta_1 goes from 0.95 to 0.85
    and back, as `OneCycleLR` does by default), no augmentation on MNIST and the digits, shifts by 4 pixels and flips on
    CIFAR-10. The backbone computes in bfloat16 where the hardware gains by it
    (`isce.models.pays_in_half`); weights, head and loss are float32. Every random draw comes from (seed, epoch), so that a
    resumed training equals an uninterrupted one. Adversarial training's eps grows from 0 over the first quarter of all steps, but
    not on CIFAR-10. Arm A takes its own optimiser and schedule, and shifts by 3 pixels.

    Returns:
        {"loss": [mean training loss of each epoch], "seconds": training time over all starts, "precision": of the backbone, "machine":
        where; joined where a resumed training changed either}.

    Raises:
        FloatingPointError: the loss is no longer finite.
    """
    method, epochs = methods.get(spec.method), spec.epochs or EPOCHS[spec.dataset]
    n, batch_size = len(train), min(128, len(train))
    steps = n // batch_size  # the last, incomplete batch waits for the next epoch's order
    if spec.arm == "A":
        optimizer, schedule = as_coded.optimizer(model, steps * epochs)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps * epochs, div_factor=3)
    device = train.images.device
    half = spec.arm == "B" and pays_in_half(spec.backbone, spec.dataset, device)
    precision = "bfloat16 backbone, float32 weights and loss" if half else record.precision(device)
    history: dict[str, Any] = {"loss": [], "seconds": 0.0, "precision": precision, "machine": record.machine(device)}
    arrange(model, half).train()
    augmented, shift = data.DATASETS[spec.dataset].augmented, 4 if spec.arm == "B" else 3
    growth = epochs * steps / 4 if spec.dataset != "cifar10" else 1  # steps until AT's eps has its full size

    def gradients(x: Tensor, y: Tensor, eps: Number = 0.0, key: int | Tensor = 0) -> tuple[Tensor, Tensor]:
        """The mean loss and the features of a batch, uint8 (N, C, H, W); its gradients replace the parameters' own."""
        model.zero_grad()
        x = data.to_float(x)
        if method.adversarial:
            x = adversarial_images(model, x, y, eps, int(spec.options["steps"]), key)
        z = model.features(x)
        loss = model.head.loss(z, y).mean()
        loss.backward()
        return loss.detach(), z.detach()

    with computing(model, half):
        if pays_compiled(spec.backbone, half, device, epochs * steps) and compiled(gradients, model, batch_size, train):
            history["precision"] += ", compiled"
        first = _resume(checkpoint, model, optimizer, schedule, history, spec)
        if device.type == "cuda":
            gradients = replayed(gradients, model, batch_size, train)
        for epoch in tqdm(
            range(first, epochs), spec.run_id, leave=False, disable=not progress, mininterval=1, unit="epoch"
        ):
            started = time.perf_counter()
            generator = torch.Generator().manual_seed(_mix(spec.seed, epoch))
            shuffled = train.take(torch.randperm(n, generator=generator)[: steps * batch_size].to(device))
            images = data.augment(shuffled.images, generator, shift) if augmented else shuffled.images
            total = torch.zeros((), device=device)
            batches = zip(images.split(batch_size), shuffled.labels.split(batch_size), strict=True)
            for step, (x, y) in enumerate(batches):
                if method.adversarial:
                    grown = min(1.0, (epoch * steps + step + 1) / growth)
                    loss, z = gradients(x, y, spec.options["eps"] * grown, random.draw_key(generator))
                else:
                    loss, z = gradients(x, y)
                optimizer.step()
                schedule.step()
                model.head.after_step(z, y)
                total += loss
            mean = float(total) / steps
            if not mean < float("inf"):
                raise FloatingPointError(
                    f"{spec.run_id}: the training loss became {mean} in epoch {epoch + 1}: "
                    "try another seed, or smaller options where the method has them"
                )
            history["loss"].append(round(mean, 6))
            history["seconds"] += time.perf_counter() - started
            if checkpoint is not None and epoch + 1 < epochs:
                _save(checkpoint, model, optimizer, schedule, history, spec)
    return history


def hooked(model: nn.Module) -> bool:
    """Whether somebody has hooks on it, which a compiled pass or a replayed one would not call."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for module in model.modules() for kind in kinds)


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """For a rehearsal: batch norm's statistics, which its passes move, are afterwards as before, also where it fails."""
    state = [(tensor, tensor.clone()) for tensor in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, before in state:
                tensor.copy_(before)


def compiled(gradients: Gradients, model: Classifier, batch_size: int, train: data.Split) -> bool:
    """Have torch compile the backbone's passes, all in one step of which nothing else stays; whether that is done. Where torch cannot
    (it wants a C++ compiler), one line says so; a model with hooks is left as it is."""
    if hooked(model):
        return False
    try:
        model.compiled = torch.compile(model.backbone.forward, dynamic=False)
        with statistics_kept(model):
            gradients(train.images[:batch_size], train.labels[:batch_size])
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        record.log(f"isce: torch.compile: {first}: training without it, slower")
        model.compiled = None
    return model.compiled is not None


_RECORDING = Lock()  # of one CUDA graph at a time: beginning one empties the allocator's cache


def replayed(gradients: Gradients, model: nn.Module, batch_size: int, train: data.Split) -> Gradients:
    """`gradients` as a CUDA graph: its hundreds of launches are recorded once and replayed as one.

    ResNet-32 at batch 128 is bound by launches, not by arithmetic. Inputs are copied into the graph's own tensors, its
    gradients stay where the optimiser finds them. Other threads may go on training meanwhile (`train_all`). Where a graph
    cannot be recorded, one line says so, and the launches stay; so they do for a model with forward hooks.
    """
    if hooked(model):
        return gradients
    device = train.images.device
    given = [train.images[:batch_size].clone(), train.labels[:batch_size].clone()]
    given += [torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)]
    try:
        with statistics_kept(model):
            stream, outer = _stream(device, "recording"), torch.cuda.current_stream(device)
            stream.wait_stream(outer)
            try:
                with torch.cuda.stream(stream):
                    for _ in range(3):
                        gradients(*given)
            finally:
                outer.wait_stream(stream)  # one that failed may still be writing
            graph = torch.cuda.CUDAGraph()
            with _RECORDING, torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                loss, z = gradients(*given)
    except RuntimeError as error:
        record.log(f"isce: no CUDA graph ({str(error).splitlines()[0]}): training launch by launch, slower")
        return gradients

    def replay(x: Tensor, y: Tensor, eps: Number = 0.0, key: int | Tensor = 0) -> tuple[Tensor, Tensor]:
        for own, value in zip(given, (x, y, eps, key), strict=True):
            own.copy_(value) if isinstance(value, Tensor) else own.fill_(value)
        graph.replay()
        return loss, z

    return replay


def adversarial_images(model: nn.Module, x: Tensor, y: Tensor, eps: Number, steps: int, key: int | Tensor) -> Tensor:
    """Inner maximisation of adversarial training (Madry et al. 2018): L2 PGD, step 2.5 eps / steps, random start.

    Unlike `isce.attacks.pgd`, which stops at the first success, every image takes all steps: training wants the worst.
    eps and key (of the starts, `isce.attacks.random.draw_key`) are numbers, or tensors () that a CUDA graph may refill.
    """
    seeds = random.image_seeds(x, key)
    with held(model):
        adversarial = random_in_ball(x, seeds, 0, eps)
        for _ in range(steps):
            leaf, logits = differentiable(model, adversarial)
            (gradient,) = torch.autograd.grad(softmax_cross_entropy(logits, y).sum(), leaf)
            adversarial = project(adversarial + 2.5 * eps / steps * steepest(gradient), x, eps)
    return adversarial


def _mix(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch * 7919 + 17) % 2**63


def _save(path: Path, model: nn.Module, optimizer: Any, schedule: Any, history: dict[str, Any], spec: Spec) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    try:
        with record.atomic(path) as part:
            torch.save({**state, "history": history, "run_id": spec.run_id}, part)
    except (OSError, RuntimeError) as error:  # torch's own, where the disk is full
        record.log(
            f"isce: no checkpoint of {spec.run_id} ({str(error).splitlines()[0]}): is the disk full? Training goes on"
        )


def _resume(
    path: Path | None, model: nn.Module, optimizer: Any, schedule: Any, history: dict[str, Any], spec: Spec
) -> int:
    if path is None or not path.is_file():
        return 0
    fresh = copy.deepcopy((model.state_dict(), optimizer.state_dict(), schedule.state_dict()))
    try:
        state = read_checkpoint(path, next(model.parameters()).device)
        if state["run_id"] != spec.run_id:
            raise ValueError("of another run")
        past = dict(state["history"], loss=list(state["history"]["loss"]), seconds=float(state["history"]["seconds"]))
        starts = {key: past.get(key, history[key]).split("; then ") for key in ("precision", "machine")}
        for part, key in ((model, "model"), (optimizer, "optimizer"), (schedule, "schedule")):
            part.load_state_dict(state[key])
    except NOT_DAMAGE:
        raise
    except Exception as error:  # a damaged file fails in many ways; the training itself is never lost by it
        aside = path.with_suffix(".unusable")
        record.log(
            f"isce: {path.parent.name}/{path.name} cannot be used ({type(error).__name__}), {aside.name} now: training from the start"
        )
        path.replace(aside)
        for part, own in zip((model, optimizer, schedule), fresh, strict=True):
            part.load_state_dict(own)
        return 0
    # A fused step reads weights, gradients and moments in one memory order, and this device's may not be the former's.
    for weight, own in optimizer.state.items():
        same = {key: value for key, value in own.items() if isinstance(value, Tensor) and value.shape == weight.shape}
        own.update({key: torch.empty_like(weight).copy_(value) for key, value in same.items()})
    for key, before in starts.items():  # of each start, where a resumed training has moved
        past[key] = "; then ".join(before if history[key] in before else [*before, history[key]])
    history.update(past)
    return len(history["loss"])
