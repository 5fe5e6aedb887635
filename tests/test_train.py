"""Training: learns, resumes exactly, survives damage, and its record says where it comes from."""

import contextlib
import dataclasses
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from isce import data, evaluate, methods, models, record, train
from isce.attacks.common import differentiable, held
from isce.losses import softmax_cross_entropy
from isce.models import Classifier
from isce.train import Spec, load_or_train


@pytest.fixture
def own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    return tmp_path


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([t.flatten().double() for t in model.state_dict().values()])


@pytest.mark.parametrize("method", [*methods.METHODS, *methods.CONTROLS])
def test_every_method_learns(method: str) -> None:
    """Chance is 10 %. On 8 x 8 pixels Random loses much of its SCE model's accuracy: one pixel is far there."""
    spec = Spec("digits", "lenet5", method, epochs=15 if method != "at" else 8)
    model = load_or_train(spec, "cpu", progress=False)
    assert not model.training
    torch.manual_seed(0)
    accuracy = train.accuracy(model, data.load("digits").test)
    assert accuracy > {"random": 50, "at": 80}.get(method, 90)
    if method != "at":
        loss = (train.result(spec) or {})["metrics"]["train_loss"]
        assert loss[-1] < loss[0]


def test_record(digits_isce: Classifier) -> None:
    spec = Spec("digits", "lenet5", "isce")
    result = train.result(spec)
    assert result is not None
    assert result["spec"] == json.loads(json.dumps(spec.payload()))
    assert result["metrics"]["test_accuracy"] == pytest.approx(train.accuracy(digits_isce, data.load("digits").test))
    assert result["metrics"]["validation_accuracy"] == train.accuracy(digits_isce, data.load("digits").validation)
    assert result["metrics"]["validation_n"] == len(data.load("digits").validation)
    low, high = result["metrics"]["test_interval"]
    assert low < result["metrics"]["test_accuracy"] < high
    assert len(result["metrics"]["train_loss"]) == spec.epochs
    assert result["provenance"]["data_sha256"] == data.DATASETS["digits"].sha256
    assert {"model.safetensors", "result.json"} <= set(os.listdir(spec.folder))


def test_same_spec_same_run_same_weights(own_runs: Path) -> None:
    spec = Spec("digits", "lenet5", "isce", epochs=1)
    assert spec.run_id == Spec("digits", "lenet5", "isce", epochs=1, options={"s": 1.0, "m": 0.1}).run_id
    others = [{"seed": 1}, {"epochs": 2}, {"embedding_dim": 3}, {"options": {"m": 0.05}}, {"method": "sce"}]
    ids = {dataclasses.replace(spec, **({"options": {}} | o)).run_id for o in others}  # type: ignore[arg-type]
    assert len(ids | {spec.run_id}) == 6
    first = weights(load_or_train(spec, "cpu", progress=False))
    for path in spec.folder.iterdir():
        path.unlink()
    torch.testing.assert_close(weights(load_or_train(spec, "cpu", progress=False)), first, rtol=0, atol=0)


def test_trainings_side_by_side_are_those_of_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [Spec("digits", "lenet5", method, seed, epochs=2) for method in ("isce", "at", "random") for seed in (0, 1)]
    state, found = torch.get_rng_state(), []
    for at_once in (1, 3):
        monkeypatch.setenv("ISCE_RUNS", str(tmp_path / str(at_once)))
        train.train_all([*specs, specs[0]], "cpu", progress=False, at_once=at_once)
        found.append([weights(load_or_train(spec, "cpu", progress=False)) for spec in specs])
    for alone, beside in zip(*found, strict=True):
        torch.testing.assert_close(beside, alone, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)  # no thread's draws came out of the common generator


def test_a_training_that_fails_stops_those_not_begun(own_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, gate = [], threading.Event()

    def fake(spec: Spec, *_: object) -> None:
        begun.append(spec.seed)
        if spec.seed == 0:
            raise FloatingPointError("the training loss became nan")
        gate.wait(5)

    monkeypatch.setattr(train, "load_or_train", fake)
    threading.Timer(0.5, gate.set).start()
    with pytest.raises(FloatingPointError, match="became nan"):
        train.train_all([Spec("digits", "lenet5", "sce", seed) for seed in range(9)], "cpu", at_once=2)
    assert gate.is_set()  # the one under way was waited for
    assert len(begun) < 5
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"at_once must be at least 1, got {wrong}"):
            train.train_all([], at_once=wrong)
    monkeypatch.setattr(train.record, "pick_device", torch.device)  # two trainings on one stream would mix
    with pytest.raises(ValueError, match="at_once must be at most 16 on a GPU, got 17"):
        train.train_all([], "cuda", at_once=17)
    train.train_all([], "cuda", at_once=16)


@pytest.mark.parametrize("at_once", [1, 2])
def test_no_training_is_begun_once_time_is_over(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    monkeypatch.setattr(train, "load_or_train", lambda spec, *_: begun.append(spec.seed))
    wanted = [Spec("digits", "lenet5", "sce", seed) for seed in range(6)]
    train.train_all(wanted, "cpu", at_once=at_once, more=lambda: len(begun) < 2)
    assert 2 <= len(begun) < 2 + at_once  # those side by side may ask at the same time


def test_a_training_that_moved_names_the_precision_and_machine_of_each_part(
    own_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Spec("digits", "cnn8", "sce", epochs=2)
    save = train._save

    def save_and_die(*args: object) -> None:
        save(*args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "pays_in_half", lambda *_: True)
    monkeypatch.setattr(record, "machine", lambda _: "one machine")
    with monkeypatch.context() as patch:
        patch.setattr(train, "_save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            load_or_train(spec, "cpu", progress=False)
    monkeypatch.setattr(train, "pays_in_half", lambda *_: False)
    monkeypatch.setattr(record, "machine", lambda _: "another")
    load_or_train(spec, "cpu", progress=False)
    done = train.result(spec)
    assert done is not None
    assert done["provenance"]["precision"] == "bfloat16 backbone, float32 weights and loss; then float32"
    assert done["provenance"]["device_name"] == "one machine; then another"


@pytest.mark.parametrize("orders", [("channels_last", "contiguous_format"), ("contiguous_format", "channels_last")])
def test_a_training_that_moved_takes_its_moments_along(orders: tuple[str, str], tmp_path: Path) -> None:
    """A CPU and a GPU lay the weights out in different orders, and a fused step reads the moments in the order of the weights."""
    spec = Spec("digits", "cnn8", "sce", epochs=2)
    both = []
    for order in orders:
        model = spec.build()
        model.backbone.to(memory_format=getattr(torch, order))  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=9)
        both.append(
            (model, optimizer, schedule, {"loss": [1.0], "seconds": 1.0, "precision": "float32", "machine": "this"})
        )

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for weight in model.parameters():
            weight.grad = torch.empty_like(weight).copy_(torch.randn(weight.shape, generator=generator))
        optimizer.step()

    here, there = both
    step(*here[:2], seed=0)
    train._save(tmp_path / "checkpoint.pt", *here, spec)
    assert train._resume(tmp_path / "checkpoint.pt", *there, spec) == 1
    for model, optimizer, *_ in both:
        step(model, optimizer, seed=1)
    torch.testing.assert_close(weights(there[0]), weights(here[0]))


def test_measures_of_other_weights_do_not_count(own_runs: Path) -> None:
    spec = Spec("digits", "lenet5", "sce", epochs=1)
    load_or_train(spec, "cpu", progress=False)
    train.write_measures(spec, "theory", {"pairs": 3}, 10, torch.device("cpu"))
    assert (train.measures(spec, "theory") or {})["pairs"] == 3
    path = spec.folder / "result.json"
    record.write_json(path, (record.read_json(path) or {}) | {"weights_sha256": "another"})
    assert train.measures(spec, "theory") is None
    path.unlink()
    assert (train.measures(spec, "theory") or {})["pairs"] == 3  # as of a network that is not here


@pytest.mark.parametrize("method", ["center", "at"])
def test_a_resumed_training_equals_an_uninterrupted_one(
    own_runs: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Spec("digits", "lenet5", method, epochs=3)
    whole = weights(load_or_train(spec, "cpu", progress=False))
    for path in spec.folder.iterdir():
        path.unlink()

    class Killed(BaseException):
        pass

    save, saved = train._save, []

    def save_and_die(*args: object) -> None:
        save(*args)  # type: ignore[arg-type]
        saved.append(args)
        if len(saved) == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(train, "_save", save_and_die)
        with pytest.raises(Killed):
            load_or_train(spec, "cpu", progress=False)
    assert os.listdir(spec.folder) == ["checkpoint.pt"]
    assert train.result(spec) is None
    torch.testing.assert_close(weights(load_or_train(spec, "cpu", progress=False)), whole, rtol=0, atol=0)
    assert not (spec.folder / "checkpoint.pt").exists()


def test_a_killed_process_leaves_no_half_result_and_goes_on(own_runs: Path) -> None:
    code = (
        "import torch; torch.set_num_threads(1); from isce.train import *;"
        "load_or_train(Spec('digits', 'lenet5', 'isce', epochs=60), 'cpu', progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "ISCE_RUNS": str(own_runs)})
    spec = Spec("digits", "lenet5", "isce", epochs=60)
    checkpoint = spec.folder / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    assert train.result(spec) is None
    before = len(torch.load(checkpoint, weights_only=True)["history"]["loss"])
    assert 1 <= before < 60
    load_or_train(spec, "cpu", progress=False)  # the dead process's lock does not hold it up
    assert len((train.result(spec) or {})["metrics"]["train_loss"]) == 60


def test_the_stored_float16_weights_are_exactly_the_evaluated_ones(own_runs: Path) -> None:
    spec = Spec("digits", "lenet5", "center", epochs=1)
    model = load_or_train(spec, "cpu", progress=False)
    stored = load_file(spec.folder / "model.safetensors")
    assert {t.dtype for t in stored.values() if t.is_floating_point()} == {torch.float16}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, stored[name].to(tensor.dtype)), name
    assert (train.result(spec) or {})["metrics"]["test_accuracy"] == train.accuracy(model, data.load("digits").test)


def test_what_float16_cannot_hold_stays_as_it_is() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1e6, 1 / 3]]))
    assert train.round_to_half(model)["weight"].dtype == torch.float32
    assert model.weight[0, 1] == torch.tensor(1 / 3)


@pytest.fixture
def committed(
    own_runs: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> tuple[Spec, torch.Tensor, Path]:
    """A run that lies in results/ alone: its spec, its weights, its folder there."""
    results = tmp_path_factory.mktemp("results")
    monkeypatch.setattr(record, "results_dir", lambda: results)
    spec = Spec("digits", "lenet5", "sce", epochs=1)
    first = weights(load_or_train(spec, "cpu", progress=False))
    shutil.move(spec.folder, results / spec.run_id)
    return spec, first, results / spec.run_id


def test_a_committed_model_needs_no_training(
    committed: tuple[Spec, torch.Tensor, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, first, folder = committed
    monkeypatch.setattr(train, "_train", lambda *_: pytest.fail("trained although the model is committed"))
    assert torch.equal(weights(load_or_train(spec, "cpu", progress=False)), first)
    assert (spec.folder / "result.json").read_bytes() == (folder / "result.json").read_bytes()


def test_a_damaged_committed_model_is_not_used(
    committed: tuple[Spec, torch.Tensor, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    spec, first, folder = committed
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert torch.equal(weights(load_or_train(spec, "cpu", progress=False)), first)
    assert "not the weights" not in capsys.readouterr().err


def test_a_training_that_ends_elsewhere_than_the_committed_one_says_so(
    committed: tuple[Spec, torch.Tensor, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    spec, _, folder = committed
    (folder / "model.safetensors").unlink()  # only the first seed's are committed
    done = record.read_json(folder / "result.json") or {}
    record.write_json(folder / "result.json", done | {"weights_sha256": "that of another processor"})
    load_or_train(spec, "cpu")
    first, *_, last = capsys.readouterr().err.strip().splitlines()
    assert first == f"isce: {spec.run_id} is trained here: neither runs/ nor results/ have its weights"
    assert last.startswith(f"isce: {spec.run_id}: not the weights that results/ has records of")


def test_equal_specs_are_one_key() -> None:
    a, b = (Spec("digits", "lenet5", "isce", options=given) for given in ({"s": 1.2}, {"s": 1.2, "m": 0.1}))
    assert {a: 1}[b] == 1
    assert len({a, b, Spec("digits", "lenet5", "isce")}) == 2


def test_what_is_no_spec_is_told_so() -> None:
    with pytest.raises(TypeError, match="spec must be a train.Spec, got 'isce'"):
        load_or_train("isce")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="device must be auto, cpu, cuda or cuda:N, got None"):
        load_or_train(Spec("digits", "lenet5", "isce"), None)  # type: ignore[arg-type]


def test_weights_can_be_read_by_whoever_can_read_the_record(own_runs: Path) -> None:
    spec = Spec("digits", "lenet5", "sce", epochs=1)
    load_or_train(spec, "cpu", progress=False)
    weights_mode, record_mode = ((spec.folder / name).stat().st_mode for name in ("model.safetensors", "result.json"))
    assert weights_mode == record_mode


def test_damaged_weights_are_trained_again(own_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = Spec("digits", "lenet5", "sce", epochs=1)
    first = weights(load_or_train(spec, "cpu", progress=False))
    path = spec.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    attack = spec.folder / "attacks" / "pgd_un_10-0.json"  # hours of work, which states the weights that it is of
    record.write_json(attack, {"schema": record.SCHEMA})
    held, made_of_them = spec.folder / ".separation.json.lock", spec.folder / "separation.json"
    for file in (held, made_of_them):
        file.touch()
    assert torch.equal(weights(load_or_train(spec, "cpu", progress=False)), first)
    assert (attack.is_file(), held.is_file(), made_of_them.is_file()) == (True, True, False)
    (spec.folder / "result.json").write_text('{"schema": 1}')
    assert torch.equal(weights(load_or_train(spec, "cpu", progress=False)), first)
    assert "missing or damaged: they will be made again" in capsys.readouterr().err


def test_a_full_disk_costs_the_checkpoint_not_the_training(
    own_runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Spec("digits", "lenet5", "sce", epochs=2)
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(RuntimeError("unexpected pos 64 vs 0")))
    load_or_train(spec, "cpu", progress=False)
    assert f"no checkpoint of {spec.run_id} (unexpected pos 64 vs 0): is the disk full?" in capsys.readouterr().err
    assert [path for path in spec.folder.iterdir() if "checkpoint" in path.name] == []


def test_a_damaged_checkpoint_starts_anew(own_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = Spec("digits", "lenet5", "sce", epochs=1)
    first = weights(load_or_train(spec, "cpu", progress=False))
    for path in spec.folder.iterdir():
        path.unlink()
    (spec.folder / "checkpoint.pt").write_bytes(b"no checkpoint")
    assert torch.equal(weights(load_or_train(spec, "cpu", progress=False)), first)
    assert "checkpoint.pt cannot be used" in capsys.readouterr().err
    assert (spec.folder / "checkpoint.unusable").read_bytes() == b"no checkpoint"
    for path in spec.folder.iterdir():
        path.unlink()
    model = spec.build()  # whole but for some weights: torch would load them as they are
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    past = {"loss": [1.0], "seconds": 1.0, "precision": "float32", "machine": "this"}
    train._save(path := spec.folder / "checkpoint.pt", model, optimizer, schedule, past, spec)
    content = path.read_bytes()
    weight = max(model.parameters(), key=torch.numel).detach().numpy().tobytes()[:4000]
    assert content.count(weight) == 1
    assert train.epochs_in(path, spec.run_id) == 1
    path.write_bytes(content.replace(weight, bytes(len(weight))))
    assert train.epochs_in(path, spec.run_id) == 0
    assert torch.equal(weights(load_or_train(spec, "cpu", progress=False)), first)
    assert "checkpoint.pt cannot be used (ValueError)" in capsys.readouterr().err
    for path in spec.folder.iterdir():
        path.unlink()
    state = {"run_id": spec.run_id, "model": {}}  # of this run, with parts missing or damaged
    history = {"loss": [1.0], "seconds": 1.0, "precision": "float32", "machine": "this"}
    moved = {name: value + 1 for name, value in spec.build().state_dict().items()}
    for part in (
        state,
        state | {"history": history | {"precision": None}},
        state | {"history": history},
        state | {"history": history, "model": moved, "optimizer": {}},
    ):
        torch.save(part, spec.folder / "checkpoint.pt")
        assert torch.equal(weights(load_or_train(spec, "cpu", progress=False)), first)
        assert re.search(
            r"checkpoint\.pt cannot be used \((KeyError|RuntimeError|AttributeError)\)", capsys.readouterr().err
        )
        for path in spec.folder.iterdir():
            path.unlink()


def test_a_checkpoint_that_cannot_be_read_now_stays(own_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Spec("digits", "lenet5", "sce", epochs=1)
    spec.folder.mkdir(parents=True)
    path = spec.folder / "checkpoint.pt"
    for error in (OSError(5, "Input/output error"), torch.OutOfMemoryError("CUDA out of memory")):
        path.write_bytes(b"sound")

        def fails(*_: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(train, "read_checkpoint", fails)
        with pytest.raises(type(error), match=str(error.args[-1])):
            load_or_train(spec, "cpu", progress=False)
        with pytest.raises(type(error)):
            train.epochs_in(path, spec.run_id)
        assert path.read_bytes() == b"sound"
    assert train.epochs_in(spec.folder / "absent.pt", spec.run_id) == 0


def test_accuracy_of_floats_and_bytes_is_one(digits_isce: Classifier) -> None:
    split = data.subset(data.load("digits").test, 50)
    own = data.Split(data.to_float(split.images), split.labels)
    frozen = nn.BatchNorm1d(64).eval()
    model = nn.Sequential(nn.Flatten(), frozen, nn.Linear(64, 10)).train()
    frozen.eval()
    train.accuracy(model, own)
    assert (model.training, frozen.training) == (True, False)
    assert train.accuracy(digits_isce, own) == train.accuracy(digits_isce, split) > 50


@pytest.mark.parametrize(
    ("method", "options", "error", "says"),
    [
        ("label_smoothing", {"smoothing": math.nan}, ValueError, "option smoothing of Label smoothing must be finite"),
        ("label_smoothing", {"smoothing": 5}, ValueError, "smoothing of Label smoothing must be in [0, 1], got 5.0"),
        ("mmc", {"norm": -3}, ValueError, "norm of MMC must be > 0"),
        ("arcface", {"s": 0}, ValueError, "s of ArcFace must be > 0"),
        ("temperature", {"temperature": 0}, ValueError, "temperature of Temperature 20 must be > 0"),
        ("lgm", {"alpha": -1}, ValueError, "alpha of L-GM must be >= 0"),
        ("at", {"eps": math.inf}, ValueError, "eps of AT must be finite"),
        ("isce", None, TypeError, "options of I-SCE must be a dict, got None"),
    ],
)
def test_settings_that_no_training_can_have(
    method: str, options: dict[str, float], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=re.escape(says)):
        Spec("digits", "lenet5", method, options=options)


def test_whole_numbers_of_numpy_are_the_same_run() -> None:
    assert Spec("digits", "lenet5", "sce", seed=np.int64(3), epochs=np.int64(2)).run_id == (  # type: ignore[arg-type]
        Spec("digits", "lenet5", "sce", seed=3, epochs=2).run_id
    )


def test_a_damaged_checkpoint_leaves_arm_a_its_pixel_mean(own_runs: Path) -> None:
    spec = Spec("digits", "resnet32", "isce", arm="A", epochs=1)
    first = weights(load_or_train(spec, "cpu", progress=False))
    for path in spec.folder.iterdir():
        path.unlink()
    (spec.folder / "checkpoint.pt").write_bytes(b"no checkpoint")
    assert torch.equal(weights(load_or_train(spec, "cpu", progress=False)), first)


def recipe(spec: Spec, train_split: data.Split, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What a training does, step by step: its learning rates, labels and AT's eps; epoch by epoch its shifts."""
    seen: dict[str, list[Any]] = {"lr": [], "beta": [], "decay": [], "labels": [], "eps": [], "shift": []}
    model, step, augment = spec.build(), torch.optim.Adam.step, data.augment
    loss = model.head.loss

    def stepped(self: torch.optim.Adam, *given: Any, **more: Any) -> Any:
        seen["lr"].append(float(self.param_groups[0]["lr"]))
        seen["beta"].append(float(self.param_groups[0]["betas"][0]))
        seen["decay"].append(float(self.param_groups[0]["weight_decay"]))
        return step(self, *given, **more)

    def augmented(images: torch.Tensor, generator: torch.Generator, shift: int) -> torch.Tensor:
        seen["shift"].append(shift)
        return augment(images, generator, shift)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", stepped)
        patch.setattr(train.data, "augment", augmented)
        patch.setattr(train, "adversarial_images", lambda _, x, y, eps, *__: (seen["eps"].append(float(eps)), x)[1])
        patch.setattr(model.head, "loss", lambda z, y: (seen["labels"].append(y), loss(z, y))[1])
        train.fit(model, train_split, spec, progress=False)
    return seen


def test_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = data.load("digits").train
    seen = recipe(Spec("digits", "lenet5", "at", epochs=2), digits, monkeypatch)
    steps = len(digits) // 128
    assert (len(seen["lr"]), len(seen["eps"]), seen["shift"]) == (2 * steps, 2 * steps, [])
    top = seen["lr"].index(max(seen["lr"]))
    assert seen["lr"][0] == pytest.approx(1e-3)
    assert seen["lr"][top] == pytest.approx(3e-3, rel=0.01)
    assert 0 < top < steps, "it rises in the first third"
    assert seen["lr"] == sorted(seen["lr"][:top]) + sorted(seen["lr"][top:], reverse=True)
    assert seen["lr"][-1] < 1e-5
    assert (seen["beta"][0], min(seen["beta"]), seen["beta"][-1]) == pytest.approx((0.95, 0.85, 0.95), abs=0.01)
    assert set(seen["decay"]) == {0.0}
    assert steps == 8
    assert seen["eps"] == [0.125, 0.25, 0.375] + [0.5] * 13, "over the first quarter of 16 steps"
    first, second = (torch.cat(seen["labels"][k * steps : (k + 1) * steps]) for k in (0, 1))
    other = torch.cat(recipe(Spec("digits", "lenet5", "sce", 1, epochs=1), digits, monkeypatch)["labels"])
    same = torch.cat(recipe(Spec("digits", "lenet5", "sce", 0, epochs=1), digits, monkeypatch)["labels"])
    assert torch.equal(first, same)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


def test_adversarial_training_sees_what_its_inner_attack_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, seen = [], []

    def inner(_: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float, steps: int, key: int) -> torch.Tensor:
        asked.append((steps, int(key)))
        return torch.full_like(x, 0.25)

    monkeypatch.setattr(train, "adversarial_images", inner)
    spec = Spec("digits", "lenet5", "at", epochs=1, options={"steps": 3})
    model = spec.build()
    model.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    train.fit(model, data.load("digits").train, spec, progress=False)
    assert {steps for steps, _ in asked} == {3}
    assert len({key for _, key in asked}) == len(asked) == len(seen) == 8, "each step starts elsewhere"
    for x in seen:
        torch.testing.assert_close(x, (torch.full_like(x, 0.25) - model.mean) / model.std)


def test_center_loss_moves_its_centres() -> None:
    spec = Spec("digits", "lenet5", "center", epochs=1)
    model = spec.build()
    train.fit(model, data.load("digits").train, spec, progress=False)
    assert bool((model.head.centers.norm(dim=1) > 0).all())  # type: ignore[union-attr, operator]


def test_the_recipe_on_cifar10(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (512, 3, 32, 32), generator=generator, dtype=torch.uint8)
    split = data.Split(images, torch.randint(0, 10, (512,), generator=generator))
    seen = recipe(Spec("cifar10", "lenet5", "at", epochs=2), split, monkeypatch)
    assert seen["eps"] == [0.5] * 8
    assert seen["shift"] == [4, 4]
    assert recipe(Spec("mnist", "lenet5", "sce", epochs=1), data.load("digits").train, monkeypatch)["shift"] == []


def test_equal_options_are_one_run() -> None:
    assert Spec("digits", "lenet5", "isce", options={"s": 1}).run_id == Spec("digits", "lenet5", "isce").run_id
    assert Spec("digits", "lenet5", "at", options={"steps": 7.0}).run_id == Spec("digits", "lenet5", "at").run_id
    with pytest.raises(ValueError, match="SCE has no options, got s"):
        Spec("digits", "lenet5", "sce", options={"s": 1.2})
    for options, words in (({"eps": -1.0}, "eps > 0"), ({"steps": 0}, "steps >= 1"), ({"steps": 2.7}, "whole number")):
        with pytest.raises(ValueError, match=words):
            Spec("digits", "lenet5", "at", options=options)


def test_a_run_that_another_process_trains_is_waited_for(own_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, began = Spec("digits", "lenet5", "sce", epochs=1), threading.Event()
    trained = train._train
    monkeypatch.setattr(train, "_train", lambda *given: (began.set(), trained(*given)))
    waiting = threading.Thread(target=load_or_train, args=(spec, "cpu", False))
    with record.lock(spec.folder):
        waiting.start()
        assert not began.wait(1.5)
    waiting.join(60)
    assert began.is_set()
    assert train.result(spec) is not None


def test_what_is_trained_can_be_read_where_nothing_may_be_written(
    digits_sce: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "lock", lambda _: pytest.fail("a lock is a file that is written"))
    model = load_or_train(Spec("digits", "lenet5", "sce"), "cpu", progress=False)
    assert torch.equal(weights(model), weights(digits_sce))


def test_random_shares_the_weights_of_sce(digits_sce: Classifier) -> None:
    spec = Spec("digits", "lenet5", "random")
    model = load_or_train(spec, "cpu", progress=False)
    assert torch.equal(weights(model), weights(digits_sce))
    assert not spec.folder.exists()
    assert train.result(spec) == train.result(Spec("digits", "lenet5", "sce"))


def test_diverging_training_says_so(own_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "pays_in_half", lambda *_: True)
    model = Spec("digits", "lenet5", "sce", epochs=1).build()
    with torch.no_grad():
        model.head.linear.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="training loss became nan in epoch 1"):
        train.fit(model, data.load("digits").train, Spec("digits", "lenet5", "sce", epochs=1), progress=False)
    assert not model.half_precision


def test_numbers_and_tensors_that_a_graph_may_refill_are_the_same_to_adversarial_training(
    digits_sce: Classifier,
) -> None:
    split = data.load("digits").test
    x, y = data.to_float(split.images[:8]), split.labels[:8]
    refilled = train.adversarial_images(digits_sce, x, y, torch.tensor(0.5), 3, torch.tensor(2**62 + 3))
    assert torch.equal(refilled, train.adversarial_images(digits_sce, x, y, 0.5, 3, 2**62 + 3))


@pytest.mark.parametrize("half", [True, False])
def test_the_backbone_trains_in_half_precision_where_that_pays(half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "pays_in_half", lambda *_: half)
    spec, seen = Spec("digits", "cnn8", "isce", epochs=1), set()
    model = spec.build()
    model.backbone.register_forward_hook(lambda _, inputs, out: seen.add((inputs[0].dtype, model.half_precision)))
    history = train.fit(model, data.load("digits").train, spec, progress=False)
    assert seen == {(torch.float32, half)}
    assert not model.half_precision  # what is evaluated is float32
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert history["precision"].startswith("bfloat16 backbone" if half else "float32")
    assert history["loss"][0] < 2.3


def test_a_long_training_of_resnet32_in_bfloat16_on_a_cpu_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps, passes and batch norm's statistics are those of the plain training: here nothing but the tracing is torch.compile's."""
    cpu, spec = torch.device("cpu"), Spec("digits", "resnet32", "at", epochs=1)
    assert models.pays_compiled("resnet32", True, cpu, 2000)
    for otherwise in (
        ("resnet32", True, cpu, 1999),
        ("resnet32", False, cpu, 2000),
        ("cnn8", True, cpu, 2000),
        ("resnet32", True, torch.device("cuda"), 2000),
    ):
        assert not models.pays_compiled(*otherwise)
    split, asked, real, shapes = data.subset(data.load("digits").train, 300), [], torch.compile, []

    def traced(forward: Callable[..., torch.Tensor], **settings: Any) -> Callable[..., torch.Tensor]:
        assert settings == {"dynamic": False}
        through = real(forward, backend="eager", **settings)
        return lambda x: (shapes.append((tuple(x.shape), model.training)), through(x))[1]

    def pays(*given: Any) -> bool:
        asked.append(given)
        return True

    plain, model = spec.build(), spec.build()
    whole = train.fit(plain, split, spec, progress=False)
    monkeypatch.setattr(torch, "compile", traced)
    monkeypatch.setattr(train, "pays_compiled", pays)
    history = train.fit(model, split, spec, progress=False)
    assert history["loss"] == whole["loss"]
    assert asked == [("resnet32", False, cpu, 2)]
    assert history["precision"] == whole["precision"] + ", compiled"
    step = [((128, 1, 8, 8), False)] * 7 + [((128, 1, 8, 8), True)]
    assert shapes == step * 3  # the rehearsal, and two batches
    assert model.compiled is None
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, plain.state_dict()[name]), name
    model.backbone.register_forward_pre_hook(lambda *_: None)
    shapes.clear()
    train.fit(model, split, spec, progress=False)
    assert shapes == []


def can_compile() -> bool:
    """What torch.compile wants on a CPU: a C++ compiler, and Python's headers."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    return shutil.which(compiler) is not None and Path(sysconfig.get_path("include"), "Python.h").exists()


@pytest.mark.skipif(not can_compile(), reason="torch.compile wants a C++ compiler and Python's headers")
def test_what_is_compiled_computes_the_same() -> None:
    """Outputs and gradients of a training's pass and of an attack's, and batch norm's statistics, on two of ResNet-32's blocks: in
    float32 the same, in bfloat16 no further from that than the plain passes are."""
    split = data.subset(data.load("digits").train, 64)
    x, y = data.to_float(split.images), split.labels

    def passes(model: Classifier) -> dict[str, torch.Tensor]:
        model.train().zero_grad()
        z = model.features(x)
        model.head.loss(z, y).mean().backward()
        found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        found |= {name: tensor.clone() for name, tensor in model.backbone.named_buffers() if tensor.is_floating_point()}
        with held(model):
            leaf, logits = differentiable(model, x)
            (gradient,) = torch.autograd.grad(softmax_cross_entropy(logits, y).sum(), leaf)
        return found | {"features": z.detach(), "logits": logits.detach(), "attack": gradient}

    def computed(half: bool, compiled: bool) -> dict[str, torch.Tensor]:
        model = Spec("digits", "resnet32", "sce").build()
        model.backbone.blocks = model.backbone.blocks[4:6]  # type: ignore[index, assignment]
        model.head.linear = torch.nn.Linear(32, 10, bias=False)  # type: ignore[assignment]
        torch.nn.init.eye_(model.head.linear.weight)  # type: ignore[arg-type, union-attr]
        models.arrange(model, half)
        with models.computing(model, half):
            if compiled:
                assert train.compiled(lambda x, y: (passes(model)["logits"], x), model, 64, split)
            return passes(model)

    plain = computed(half=False, compiled=False)
    assert len(plain) > 20
    assert all(tensor.any() for tensor in plain.values())

    def away(half: bool, compiled: bool) -> dict[str, float]:
        found = computed(half, compiled)
        return {name: float((found[name] - tensor).norm() / tensor.norm()) for name, tensor in plain.items()}

    assert max(away(half=False, compiled=True).values()) < 1e-4
    rounded = away(half=True, compiled=False)
    for name, distance in away(half=True, compiled=True).items():
        assert distance < 2 * rounded[name] + 2e-3, name


def test_what_torch_cannot_compile_is_trained_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> torch.Tensor:
        raise RuntimeError("InvalidCxxCompiler: no working C++ compiler found\nand more")

    spec, split = Spec("digits", "resnet32", "sce", epochs=1), data.subset(data.load("digits").train, 200)
    plain, model = spec.build(), spec.build()
    train.fit(plain, split, spec, progress=False)
    monkeypatch.setattr(torch, "compile", lambda *_, **__: refuse)
    monkeypatch.setattr(train, "pays_compiled", lambda *_: True)
    train.fit(model, split, spec, progress=False)
    assert capsys.readouterr().err == (
        "isce: torch.compile: InvalidCxxCompiler: no working C++ compiler found: training without it, slower\n"
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, plain.state_dict()[name]), name


def test_a_replayed_graph_gets_each_batch_and_leaves_the_statistics_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flow of tensors around a CUDA graph; the graph here is the function itself, called again on the tensors it saw last."""
    split, model = data.load("digits").train, Spec("digits", "cnn8", "at").build().train()
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    recorded: list[tuple] = []

    def gradients(x: torch.Tensor, y: torch.Tensor, eps: Any, key: Any) -> tuple[torch.Tensor, torch.Tensor]:
        z = model.features(data.to_float(x)).detach() * eps + key
        recorded.append(((x, y, eps, key), (model.head.loss(z, y).mean().detach(), z)))
        return recorded[-1][1]

    class Graph:
        def replay(self) -> None:
            given, outputs = recorded[3]  # after three rehearsals
            for old, new in zip(outputs, gradients(*given), strict=True):
                old.copy_(new)

    for name in ("Stream", "current_stream", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: MagicMock())
    monkeypatch.setattr(train, "_THREAD", threading.local())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda *_, **__: contextlib.nullcontext())
    replay = train.replayed(gradients, model, 8, split)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_buffers())
    model.eval()
    for first in (0, 8):
        x, y = split.images[first : first + 8], split.labels[first : first + 8]
        torch.testing.assert_close(replay(x, y, 0.5, 3), gradients(x, y, 0.5, 3))


def test_a_model_with_hooks_is_not_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph would call them while it is recorded and never again (Figure 2 takes the logits' norms by one)."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda *_: pytest.fail("a graph was begun"))
    model, gradients = Spec("digits", "lenet5", "sce").build(), MagicMock()
    model.head.linear.register_forward_hook(lambda *_: None)
    assert train.replayed(gradients, model, 8, data.load("digits").train) is gradients
    gradients.assert_not_called()


def test_a_thread_has_one_stream_for_each_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of PyTorch's 32: a new one for every training would come to be shared with another thread's."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: object())
    monkeypatch.setattr(train, "_THREAD", threading.local())
    gpu, others = torch.device("cuda:0"), []
    mine = [train._stream(gpu, use) for use in ("training", "recording", "training", "recording")]
    thread = threading.Thread(target=lambda: others.append(train._stream(gpu, "training")))
    thread.start()
    thread.join()
    assert (mine[0], mine[1]) == (mine[2], mine[3])
    assert len({*map(id, [mine[0], mine[1], *others])}) == 3


def test_without_a_graph_training_goes_on_and_says_so(monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    def refuse(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(torch.cuda, "Stream", refuse)
    monkeypatch.setattr(train, "_THREAD", threading.local())
    model = Spec("digits", "lenet5", "sce").build()
    assert train.replayed(refuse, model, 8, data.load("digits").train) is refuse  # type: ignore[arg-type]
    assert capsys.readouterr().err == (
        "isce: no CUDA graph (operation not permitted when stream is capturing): training launch by launch, slower\n"
    )


@pytest.mark.parametrize(("dataset", "backbone"), [("mnist", "lenet5"), ("cifar10", "cnn8"), ("cifar10", "resnet32")])
@pytest.mark.parametrize("method", [*methods.METHODS, *methods.CONTROLS])
def test_a_step_of_training_neither_asks_the_device_nor_brings_it_anything(
    dataset: str, backbone: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a CUDA graph demands, without a GPU: tensors on the meta device have no values to wait for, and whatever a step
    would bring from the host is seen. Only the epoch's mean loss is read, after its last step."""
    steps, brought, entered, inside = (
        [],
        [],
        [],
        threading.Event(),
    )  # inside: from the gradients' being cleared to the optimiser

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            given = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
            if inside.is_set() and any(t.device.type == "cpu" for t in given):
                brought.append(str(func))
            return out

    for owner, name in ((torch, "tensor"), (torch, "as_tensor"), (torch.Tensor, "new_tensor")):  # no mode sees these
        made = getattr(owner, name)

        def copied(*args: Any, made: Any = made, **kwargs: Any) -> Any:
            if inside.is_set():
                brought.append(made.__name__)
            return made(*args, **kwargs)

        monkeypatch.setattr(owner, name, copied)

    class Adam(torch.optim.Adam):
        def __init__(self, parameters: Any, lr: float, fused: bool) -> None:
            super().__init__(parameters, lr)  # fused: not on meta

        def step(self, *args: Any) -> None:
            inside.clear()
            super().step(*args)

    monkeypatch.setattr(torch.optim, "Adam", Adam)
    monkeypatch.setattr(train, "pays_in_half", lambda *_: False)  # autocast: neither
    spec = Spec(dataset, backbone, method, epochs=1)
    model = spec.build().to("meta")
    zero_grad, loss = model.zero_grad, model.head.loss
    monkeypatch.setattr(model, "zero_grad", lambda: (entered.append(inside.set()), zero_grad()))
    monkeypatch.setattr(model.head, "loss", lambda z, y: (steps.append(z.shape), loss(z, y))[1])
    shape = (2 * 128, *data.DATASETS[dataset].shape)
    split = data.Split(torch.empty(shape, dtype=torch.uint8, device="meta"), torch.empty(256, dtype=int, device="meta"))
    with pytest.raises(RuntimeError, match="item\\(\\) cannot be called on meta") as caught, Watch():
        train.fit(model, split, spec, progress=False)
    assert len(steps) == len(entered) == 2
    assert [str(entry.statement).strip() for entry in caught.traceback if entry.name == "fit"] == [
        "mean = float(total) / steps"
    ]
    assert brought == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("method", ["isce", "center", "lgm", "arcface", "mmc", "at"])
def test_a_cuda_graph_trains_as_launch_by_launch(  # type: ignore[no-untyped-def]
    method: str, half: bool, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(train, "pays_in_half", lambda *_: half)  # bfloat16, as on larger images
    spec, split, losses = Spec("digits", "resnet32", method, epochs=2), data.load("digits").train.to("cuda"), []
    for graph in (True, False):
        if not graph:
            monkeypatch.setattr(train, "replayed", lambda gradients, *_: gradients)
        losses.append(train.fit(spec.build().cuda(), split, spec, progress=False)["loss"])
    assert "no CUDA graph" not in capsys.readouterr().err
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=0.1 if method == "at" else 0.02, atol=0.01)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_side_by_side_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    specs, losses = [Spec("digits", "resnet32", m, epochs=2) for m in ("sce", "isce", "center", "at")], []
    for at_once in (1, 4):
        monkeypatch.setenv("ISCE_RUNS", str(tmp_path / str(at_once)))
        train.train_all(specs, "cuda", progress=False, at_once=at_once)
        losses.append(torch.tensor([(train.result(spec) or {})["metrics"]["train_loss"] for spec in specs]))
    assert "no CUDA graph" not in capsys.readouterr().err
    # The same training three times, one after the other on an H200: at's second epoch 0.637 to 0.663, the others' within 1 %.
    for name, one, four in zip(specs, *losses, strict=True):
        torch.testing.assert_close(one, four, rtol=0.1 if name.method == "at" else 0.02, atol=0.01)


def test_adversarial_images_stay_in_the_ball_and_raise_the_loss(digits_sce: Classifier) -> None:
    split = data.load("digits").test
    x, y = data.to_float(split.images[:64]), split.labels[:64]
    adversarial = train.adversarial_images(digits_sce, x, y, 0.5, 7, 3)
    assert float((adversarial - x).flatten(1).norm(dim=1).max()) <= 0.5 + 1e-5
    assert 0 <= float(adversarial.min()) <= float(adversarial.max()) <= 1
    loss = torch.nn.functional.cross_entropy
    assert float(loss(digits_sce(adversarial), y).detach()) > 5 * float(loss(digits_sce(x), y).detach())


def test_adversarial_images_take_the_stated_steps_from_a_random_start(generator: torch.Generator) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2, bias=False))
    x, y = 0.4 + 0.2 * torch.rand(5, 1, 4, 4, generator=generator), torch.tensor([0, 1, 0, 1, 0])
    start = train.adversarial_images(model, x, y, 0.3, 0, 3)
    assert 0 < float((start - x).flatten(1).norm(dim=1).min()) < 0.3
    weight = model[1].weight.detach()
    uphill = weight[1 - y] - weight[y]  # the loss's, wherever the image is
    uphill /= uphill.norm(dim=1, keepdim=True)
    for steps in (1, 5):
        delta = (start - x).flatten(1)
        for _ in range(steps):
            delta = delta + 2.5 * 0.3 / steps * uphill
            delta = delta * (0.3 / delta.norm(dim=1, keepdim=True)).clamp_max(1)
        adversarial = train.adversarial_images(model, x, y, 0.3, steps, 3)
        torch.testing.assert_close((adversarial - x).flatten(1), delta, atol=1e-6, rtol=1e-5)


def test_adversarial_images_leave_batch_norm_alone() -> None:
    """They are made of the network in eval mode, which then trains on them, as in the authors' code."""
    model = Spec("digits", "cnn8", "at").build().train()
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    split, modes = data.load("digits").train, []
    model.backbone.register_forward_hook(lambda module, *_: modes.append(module.training))
    train.adversarial_images(model, data.to_float(split.images[:16]), split.labels[:16], 0.5, 2, 3)
    assert modes == [False, False]
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_buffers())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"dataset": "mnits"}, ValueError, "unknown data set"),
        ({"backbone": "resnet"}, ValueError, "unknown backbone"),
        ({"method": "isec"}, ValueError, "did you mean 'isce'"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"seed": 0.5}, TypeError, "seed must be a whole number"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"epochs": "5"}, TypeError, "epochs must be a whole number"),
        ({"embedding_dim": 0}, ValueError, "embedding_dim must be at least 1"),
        ({"options": {"s": 0.9}}, ValueError, "s must be at least 1"),
        ({"options": {"m": -0.1}}, ValueError, "m must be at least 0"),
        ({"options": {"gamma": 1.0}}, ValueError, "unknown option"),
        ({"arm": "C"}, ValueError, "unknown arm"),
        ({"arm": "A", "backbone": "lenet5"}, ValueError, "arm A exists for"),
    ],
)
def test_bad_specs(change: dict[str, object], error: type[Exception], words: str) -> None:
    good = {"dataset": "digits", "backbone": "lenet5", "method": "isce"}
    with pytest.raises(error, match=words) as caught:
        Spec(**(good | change))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_run_that_fails_leaves_nothing(own_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISCE_DATA", str(own_runs / "nowhere"))
    monkeypatch.setattr(data, "_decode", lambda *_: (_ for _ in ()).throw(OSError("no route to host")))
    with pytest.raises(FileNotFoundError, match="mnist could not be read"):
        load_or_train(Spec("mnist", "lenet5", "sce", seed=99), "cpu", progress=False)
    assert [p for p in own_runs.rglob("*") if not p.name.endswith(".lock")] == []


def test_arm_a_trains_and_keeps_the_pixel_mean(own_runs: Path) -> None:
    from isce import as_coded

    spec = Spec("digits", "resnet32", "isce", epochs=2, arm="A")
    model = load_or_train(spec, "cpu", progress=False)
    mean = data.to_float(data.load("digits").train.images).mean(0) * 2 - 1
    torch.testing.assert_close(model.backbone.pixel_mean, mean.half().float())  # type: ignore[arg-type]
    split = data.load("digits").test
    x, y = data.to_float(split.images[:256]), split.labels[:256]
    f = model(x).detach()
    assert float(f.max()) <= 1.0
    assert not torch.allclose(model(x[:8]), f[:8], atol=1e-3)  # batch statistics: an image's logits depend on its batch
    attacked = as_coded.attack(model, x, y, eps=0.04, steps=5)
    assert attacked.shape == x.shape
    assert float((attacked - x).abs().max()) <= 5 * 0.02 + 1e-6
    done = train.result(spec)
    assert done is not None  # judged in the batches in which it is attacked: 256 and 244 images
    right = evaluate.predict(model, data.to_float(split.images)) == split.labels
    assert done["metrics"]["test_accuracy"] == pytest.approx(100 * float(right.double().mean()))


def test_measures_lie_beside_the_run_with_where_they_come_from() -> None:
    spec = Spec("digits", "lenet5", "random", seed=9)
    train.write_measures(spec, "theory", {"rho": 1.5}, 40, torch.device("cpu"))
    done = record.read_json(spec.folder / "theory.json")
    assert done is not None
    assert (done["kind"], done["n"], done["rho"], done["spec"]["method"]) == ("theory", 40, 1.5, "random")
    assert done["provenance"]["device"] == "cpu"
