"""The pipeline, from training to table, on a profile of seconds: killed half-way it goes on; finished it does nothing."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from isce import methods, paper, profiles, record

ROOT = Path(__file__).resolve().parents[1]
TINY = """
title: two methods on the digits
stand_in: {mnist: digits, cifar10: digits}
epochs: {digits: 3}
networks: {}
seeds: [0, 1]
tables: [5]
n: 10
fewer: {pgd_un_10: 5}
eps: {mnist: [0.5, 1.0], cifar10: [0.5, 1.0]}
simba_steps: {mnist: [0.1, 0.2], cifar10: [0.1, 0.2]}
simba_queries: {mnist: 10, cifar10: 10}
beyond: "deepfool_10@raw"
strongest: "fgsm@raw"
adaptive: {isce: "simba@raw,fgsm"}
as_coded: {blocks: [], epochs: {}, attacks: ""}
train_jobs: ["sce,isce"]
attack_jobs: ["sce,isce"]
controls: ""
figures: {embedding: {mnist: lenet5}, methods: sce, n: 10, ablation_s: [1.0, 2.0], ablation_m: [0.05, 0.1], ablation_n: 10, ablation_seeds: 2}
checks: {methods: "sce", n: 10}
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "tiny.yaml").write_text(TINY)
    (tmp_path / "disk").mkdir()
    (tmp_path / "my runs").symlink_to("disk")
    monkeypatch.setenv("ISCE_HOME", str(tmp_path))
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path / "my runs"))

    def run(*more: str) -> subprocess.Popen[str]:
        command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2", "--config", "profile=tiny"]
        flags = [
            "--nolock",
            "--rerun-incomplete",
            "--rerun-triggers",
            "mtime",
            "params",
            *more,
            "--",
            "my runs/tiny/tables.ipynb",
        ]
        return subprocess.Popen(
            command + flags,
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    return run


def test_kill_resume_and_nothing_to_do(start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    runs = tmp_path / "my runs"
    first = start()
    deadline = time.monotonic() + 180
    while not list(runs.glob("digits-lenet5-*/result.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    # Kernels live in sessions of their own, and end once they see that their parent has.
    trained = list(runs.glob("digits-lenet5-*/result.json"))
    assert trained, first.stdout.read()
    assert all(record.read_json(path) is not None for path in trained)
    assert not (runs / "tiny" / "tables.ipynb").exists()
    before = {path: path.stat().st_mtime_ns for path in trained}

    second = start()
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 0, output
    for name in ("train-digits-lenet5-0-seed0", "attack-mnist-lenet5-0-seed1", "tables"):
        assert (runs / "tiny" / f"{name}.ipynb").is_file()
    assert {path: path.stat().st_mtime_ns for path in trained} == before  # what was done is not done again
    profile = profiles.load.__wrapped__("tiny")
    wanted = [e for run in profile.runs if run[2] in ("sce", "isce") for e in profile.evaluations(*run)]
    assert {path.name for path in runs.glob("digits-lenet5-*/attacks/*.json")} == {e.path.name for e in wanted}
    assert len(wanted) == 2 * (2 * 7 + 1)  # two seeds; SimBA's surface is not asked for where SimBA is not

    third = start()
    output, _ = third.communicate(timeout=120)
    assert third.returncode == 0
    assert "Nothing to be done" in output

    output, _ = start("--dry-run", "--config", "profile=tiny", "device=cpu", "at_once=2").communicate(timeout=120)
    assert "Nothing to be done" in output  # how it is computed changes no result

    def would_run() -> set[str]:
        output, _ = start("--dry-run").communicate(timeout=120)
        return set(re.findall(r"^rule (\w+):", output, re.MULTILINE))

    (some,) = list(runs.glob("digits-lenet5-isce-seed0-*/attacks/fgsm-*.json"))[:1]
    kept = some.read_bytes()
    some.unlink()
    assert would_run() == {"attack", "tables"}  # a finished job whose record is lost
    some.write_bytes(kept)
    assert would_run() == set()
    config = tmp_path / "config" / "tiny.yaml"
    config.write_text(TINY.replace("title: two", "title: 2"))
    assert would_run() == {"tables"}  # what is said of the records
    config.write_text(TINY)

    (tmp_path / "sitecustomize.py").write_text("import isce.evaluate\nisce.evaluate.VERSION = 99\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    output, _ = start("--dry-run").communicate(timeout=120)
    assert "rule attack:" in output  # what shapes an attack has changed


def test_random_without_sce_is_trained_by_its_attack(start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    config, text = tmp_path / "config" / "tiny.yaml", TINY
    for key, value in (
        ("networks", '{mnist-lenet5: {methods: "isce,random"}}'),
        ("train_jobs", '["sce", "isce,random"]'),
        ("attack_jobs", '["isce,random"]'),
    ):
        text = re.sub(rf"^{key}: .*$", f"{key}: {value}", text, flags=re.MULTILINE)
    config.write_text(text)
    process = start("--dry-run")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "train-digits-lenet5-1-seed0" in output
    assert "train-digits-lenet5-0-seed0" not in output


def test_a_failing_job_says_why_and_leaves_no_output(start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    config = tmp_path / "config" / "tiny.yaml"
    config.write_text(config.read_text().replace('beyond: "deepfool_10@raw"', 'beyond: "deepfool_10@inference"'))
    process = start()
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "surface 'inference' is I-SCE's" in output
    assert not list((tmp_path / "my runs" / "tiny").glob("attack*.ipynb*part"))
    assert not list((tmp_path / "my runs" / "tiny").glob("attack*.ipynb"))


def script(name: str) -> ModuleType:
    source = spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert source is not None
    assert source.loader is not None
    module = module_from_spec(source)
    source.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return script("stages")


@pytest.mark.parametrize("name", ["digits", "cpu", "full"])
def test_the_stages_hold_all_that_is_published(name: str, benchmark: ModuleType) -> None:
    profile = profiles.load(name)
    staged = [e.path for _, evaluations in benchmark.stages(profile) for e in evaluations]
    wanted = {
        profile.evaluation(block, net, method, attack, seed).path
        for block, net in profile.nets
        for seed in profile.seeds_of(block, net)
        for method in profile.methods
        if profile.only(method, block, net)
        for attack in profile.attacks(block, net, method)
    }
    wanted |= {e.path for e in profile.arm_a()}
    drawn = methods.parse(profile.figures["methods"])
    wanted |= {profile.embedding(block, method).path for block in profile.figures["embedding"] for method in drawn}
    for attack in paper.ABLATION_ATTACKS:
        wanted |= {
            e.path for block, net in paper.ABLATION for e in itertools.chain(*profile.ablation(block, net, attack))
        }
    assert set(staged) == wanted
    names = [name for name, _ in benchmark.stages(profile)]
    assert len(set(names)) == len(names)


def test_a_command_may_choose_of_a_stage(benchmark: ModuleType) -> None:
    stages = dict(benchmark.stages(profiles.load("full")))
    table = stages["mnist/lenet5 seed 1: attacks of the tables"]
    every = methods.parse("all,controls")
    assert benchmark.chosen(table, every, [], None) == sorted(table, key=lambda e: e.spec.method == "at")
    assert benchmark.chosen(table, every, [0, 2], None) == []
    few = benchmark.chosen(table, ["at", "isce"], [1, 2], 50)
    assert [e.spec.method for e in few] == ["isce"] * (len(few) // 2) + ["at"] * (len(few) // 2)
    assert {(e.attack, e.n) for e in few} == {(e.attack, 10_000 if e.attack == "clean" else 50) for e in table}
    grid = stages["Figure 3, mnist/lenet5"]  # as many images in every cell, or none
    assert benchmark.chosen(grid, ["isce"], [], 50) == grid


def test_stages_stop_in_time_go_on_and_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").mkdir()
    text = TINY.replace("networks: {}", "networks: {mnist-lenet5: {methods: 'sce,isce'}}").replace(
        "seeds: [0, 1]", "seeds: [0]"
    )
    (tmp_path / "config" / "tiny.yaml").write_text(text)
    monkeypatch.setenv("ISCE_HOME", str(tmp_path))
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path / "runs"))
    command = [sys.executable, str(ROOT / "benchmarks" / "stages.py"), "--profile", "tiny", "--device", "cpu"]
    path = tmp_path / "results" / "benchmarks" / "stages-tiny-cpu.json"
    outputs = []
    for more in (["--minutes", "0"], ["--only", "tables,further", "--at-once", "2"], ["--only", "tables,further"]):
        done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=300, check=True)
        outputs.append(done.stdout)
    assert "stopped after 0 minutes" in outputs[0]
    (tables, further) = (record.read_json(path) or {})["rows"]
    assert (tables["trained"], tables["attacked"], tables["at once"]) == (2, 2 * 5, 2)
    assert (further["trained"], further["attacked"]) == (0, 2 + 1)
    assert outputs[1].count("stage mnist/lenet5") == 2
    assert "trained" not in outputs[2]  # nothing left to do
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 2

    # A network of which results/ has records but no weights is another when it is trained here: its attacks are all made anew.
    (mine,) = (tmp_path / "runs").glob("digits-lenet5-isce-*")
    committed = tmp_path / "results" / mine.name
    mine.rename(committed)
    (committed / "model.safetensors").unlink()
    for path_of_record in committed.rglob("*.json"):
        text = path_of_record.read_text()
        path_of_record.write_text(
            re.sub(r'"weights_sha256": "\w+"', '"weights_sha256": "that of another machine"', text)
        )
    next((committed / "attacks").glob("pgd_un_10-*.json")).unlink()
    subprocess.run([*command, "--only", "tables"], capture_output=True, timeout=300, check=True)
    tables = (record.read_json(path) or {})["rows"][0]
    assert (tables["trained"], tables["attacked"]) == (2 + 1, 2 * 5 + 5)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("stages", "--only lenet6", "no stage's name contains 'lenet6'"),
        ("stages", "--profile digit", "unknown profile 'digit'"),
        ("stages", "--methods isc", "unknown method 'isc'"),
        ("stages", "--n 0", "--n must be at least 1"),
        ("stages", "--minutes -1", "--minutes must be at least 0, got -1"),
        ("stages", "--seeds 7", "nothing is asked for: digits has none of these methods with these seeds"),
        ("attacks", "--attacks pdg", "unknown attack 'pdg' (did you mean 'pgd'?)"),
        ("attacks", "--models lenet5", "unknown method ''"),
        ("attacks", "--device tpu", "unknown device 'tpu'"),
        ("training", "--nets mnist", "unknown backbone ''"),
        ("training", "--nets mnist/lenet5/0", "epochs must be at least 1"),
        ("training", "--attacks pgd_50", "unknown attack 'pgd_50'"),
        ("tune", "digits lenet5 arcface s", "options look like m=0.1,0.2"),
        ("tune", "digits lenet5 arcface s=30 --device tpu", "unknown device 'tpu'"),
        ("tune", "digits lenet5 sce s=30", "SCE has no options, got s"),
    ],
)
def test_benchmarks_refuse_what_does_not_exist(
    name: str, given: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *given.split()])
    with pytest.raises(SystemExit) as ended:
        script(name).main()
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
