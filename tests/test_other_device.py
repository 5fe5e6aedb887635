"""Everything that computes, on another device: without a GPU, on one that is pretended.

A `Remote` tensor says that it lies on torch's meta device and has its values here. As on a GPU, a tensor of the other
device cannot be mixed with one of this (but for numbers, copies and indices), and code meant for CPUs alone is not taken. So a
forgotten `.to(device)` fails here too. Speed, CUDA graphs and rounding need the real thing.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from isce import attacks, checks, data, embedding, evaluate, evaluations, methods, record, theory, train
from isce.data import Split
from isce.evaluate import ATTACKS
from isce.evaluations import Evaluation
from isce.models import Classifier
from isce.train import Spec

META, CPU, aten = torch.device("meta"), torch.device("cpu"), torch.ops.aten
MAY_CROSS = {aten._to_copy.default, aten.copy_.default, aten.index.Tensor, aten.index_put_.default}


def dispatch(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation on the values that lie here; the result lies where one of the arguments does, or where it was asked for."""
    options = dict(kwargs or {})
    given = [t for t in tree_leaves((args, options)) if isinstance(t, Tensor)]
    known = {id(t.here): t for t in given if isinstance(t, Remote)}
    if known and func not in MAY_CROSS and any(not isinstance(t, Remote) and t.dim() for t in given):
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")
    asked = options.get("device")
    goes_there = torch.device(asked) == META if asked is not None else bool(known)
    if asked is not None:
        options["device"] = CPU
    if func is aten.copy_.default:
        goes_there = isinstance(args[0], Remote)
    args, options = tree_map(lambda t: t.here if isinstance(t, Remote) else t, (args, options))
    out = func(*args, **options)
    if not goes_there:
        return out
    return tree_map(lambda t: known.get(id(t), Remote(t)) if isinstance(t, Tensor) else t, out)


class Remote(Tensor):
    here: Tensor
    is_meta = False  # it has values, so that load_state_dict copies them

    def __new__(cls, here: Tensor) -> "Remote":
        options = {"strides": here.stride(), "storage_offset": here.storage_offset(), "dtype": here.dtype}
        remote: Remote = Tensor._make_wrapper_subclass(cls, here.size(), device=META, **options)
        remote.here = here
        return remote

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs)

    def tolist(self) -> Any:
        return self.here.tolist()


class OtherDevice(TorchDispatchMode):
    """For tensors made on the other device, not from one that lies there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`device="auto"` is the other device; autocast does not know it, and the fused optimiser neither."""
    monkeypatch.setattr(record, "pick_device", lambda name: META if name == "auto" else torch.device(name))
    monkeypatch.setattr(train, "pays_in_half", lambda *_: False)
    monkeypatch.setattr(torch.optim, "Adam", lambda p, lr, fused, adam=torch.optim.Adam: adam(p, lr))
    with OtherDevice():
        yield


def images(n: int) -> Split:
    return data.subset(data.load("digits").test, n)


def model_of(method: str) -> Classifier:
    return train.load_or_train(Spec("digits", "lenet5", method, epochs=3), "cpu", progress=False)


def test_devices_are_kept_apart(away: None) -> None:
    x = torch.arange(4.0)
    y = x.to(META)
    layer = torch.nn.Linear(1, 1).to(META)
    layer.load_state_dict({"weight": torch.ones(1, 1), "bias": torch.ones(1)})
    assert layer(torch.ones(1, 1, device=META)).item() == 2
    assert (y.device, (y * 2 + 1).device, torch.zeros(4, device=y.device).device) == (META, META, META)
    assert (y * torch.tensor(2.0)).sum().item() == 12  # a number may come from here
    assert y[torch.tensor([1, 2])].tolist() == [1, 2]
    y[1:3] += 5
    assert y.cpu().tolist() == [0, 6, 7, 3]
    assert x.tolist() == [0, 1, 2, 3]
    for mixed in (lambda: x + y, lambda: torch.cat([x, y]), lambda: torch.where(y > 0, x, y), lambda: y.dot(x)):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    with pytest.raises(RuntimeError, match="numpy"):
        y.numpy()


SMALL = {
    "apgd_t": partial(attacks.apgd_targeted, steps=10),
    "fab": partial(attacks.fab, steps=10),
    "square": partial(attacks.square, queries=60),
    "autoattack": partial(attacks.autoattack, steps=5, queries=60),
}
NAMES = [name for name in ATTACKS if not name.startswith("as_coded")]


@pytest.mark.parametrize(
    "attack", [*NAMES, "pgd_un_10@raw", "pgd_un_10@x20", "pgd_un_10@inference", "pgd_un_10@transfer"]
)
def test_attacks(attack: str, away: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if attack in SMALL:
        monkeypatch.setitem(ATTACKS, attack, dataclasses.replace(ATTACKS[attack], run=SMALL[attack]))
    split, model, sce = images(24), model_of("isce"), model_of("sce")
    request = {attack: evaluate.default_levels(attack, [0.5], [0.2])}
    here = evaluate.evaluate(model, split, request, queries=40, surrogate=sce)
    there = evaluate.evaluate(model.to(META), split.to(META), request, queries=40, surrogate=sce.to(META))
    assert (here["clean"] == there["clean"]).all()
    assert (here["correct"] == there["correct"]).mean() >= 0.95


@pytest.mark.parametrize("method", [*methods.METHODS, *methods.CONTROLS])
def test_training(method: str, away: None) -> None:
    spec = Spec("digits", "lenet5", method, epochs=1)
    split = data.load("digits").train.take(slice(0, 3 * 128))
    losses = []
    for place in (CPU, META):
        model = spec.build().to(place)
        losses += train.fit(model, split.to(place), spec, progress=False)["loss"]
        assert next(model.parameters()).device == place
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize(("dataset", "backbone"), [("cifar10", "cnn8"), ("mnist", "resnet32")])
def test_networks(dataset: str, backbone: str, away: None) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (32, *data.DATASETS[dataset].shape), generator=generator, dtype=torch.uint8)
    split, spec = Split(x, torch.arange(32) % 10), Spec(dataset, backbone, "at", epochs=1)
    losses = [train.fit(spec.build().to(d), split.to(d), spec, progress=False)["loss"] for d in (CPU, META)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


def test_records(away: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    for method, attack in (("isce", "clean"), ("isce", "deepfool_10@raw"), ("random", "pgd_un_10@eot20")):
        wanted = Evaluation(Spec("digits", "lenet5", method, epochs=2), attack, (0.5,), 12)
        for evaluation in (wanted, dataclasses.replace(wanted, n=20)):  # the second goes on with the first
            done = evaluations.load_or_evaluate(evaluation, progress=False)
        assert (done["provenance"]["device"], done["n"], done["earlier"][0]["n"]) == ("meta", 20, 12)
    arm_a = Evaluation(Spec("digits", "resnet32", "isce", arm="A", epochs=1), "as_coded_5", (0.01,), 20)
    assert evaluations.load_or_evaluate(arm_a, progress=False)["n"] == 20
    checked = checks.load_or_check(
        Spec("digits", "lenet5", "isce", epochs=2), eps=0.5, n=8, progress=False, steps=3, queries=20
    )
    assert {check.name for check in checks.from_record(checked)} >= {"transfer", "deepfool"}


def test_measures(away: None) -> None:
    split, model = images(30).to(META), model_of("isce").to(META)
    x = data.to_float(split.images)
    f = model.raw_logits(x).detach()
    found = embedding.pull(lambda f: f.logsumexp(1), lambda f: f[:, 0], f)
    assert found["rate"].device == META
    assert len(embedding.sides(embedding.downhill(lambda f: f.logsumexp(1), f), split.labels)) == 2
    flat = train.load_or_train(Spec("digits", "lenet5", "sce", epochs=2, embedding_dim=2), progress=False)
    z = flat.features(x).detach().cpu()
    assert embedding.decision_plane(flat, z, 20)["decision"].shape == (20, 20)
    assert embedding.stretch(flat, x).shape == (30, 2)
    assert embedding.norms_in_training(Spec("digits", "lenet5", "sce", epochs=1), META, progress=False).shape == (1,)
    moved = f.roll(1, 0)
    assert theory.violations_near(f, moved, split.labels, 0.1, draws=3)[1] >= 0
    assert float(theory.L_I(f, moved, split.labels).sum()) != 0
