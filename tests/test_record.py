"""Records: atomic, named by what they hold, with intervals that are right, and parameters that are checked."""

import errno
import json
import math
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
import torch

from isce import record


def test_wilson_against_scipy() -> None:
    from scipy.stats import binomtest

    for k, n in [(0, 10), (1, 10), (10, 10), (435, 1000), (9, 200)]:
        expected = binomtest(k, n).proportion_ci(method="wilson")
        assert record.wilson(k, n) == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-4)
    for k, n in [(-1, 10), (11, 10), (0, 0)]:
        with pytest.raises(ValueError, match="want 0 <= correct <= n"):
            record.wilson(k, n)


def test_run_id_depends_on_content_alone() -> None:
    assert record.run_id({"a": 1, "b": 2.0}) == record.run_id({"b": 2.0, "a": 1})
    assert record.run_id({"a": 1}) != record.run_id({"a": 2})
    assert len(record.run_id({})) == 10


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    record.write_json(path, {"schema": record.SCHEMA, "x": 1})

    def fail() -> None:
        with record.atomic(path) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert record.read_json(path) == {"schema": record.SCHEMA, "x": 1}
    assert os.listdir(tmp_path) == ["result.json"]
    with pytest.raises(ValueError, match="JSON"):  # NaN is no number of a record
        record.write_json(path, {"schema": record.SCHEMA, "x": math.nan})
    assert record.read_json(path) == {"schema": record.SCHEMA, "x": 1}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 0}', "null"])
def test_a_damaged_or_foreign_record_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    assert record.read_json(path) is None
    assert record.read_json(tmp_path / "absent.json") is None
    assert record.read_json(path / "below a file.json") is None


def test_a_record_that_cannot_be_read_now_is_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what it is of would be made anew, over it."""
    record.write_json(path := tmp_path / "result.json", {"x": 1})

    def too_many_files(*_: object, **__: object) -> str:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "read_text", too_many_files)
    with pytest.raises(OSError, match="Too many open files"):
        record.read_json(path)


def test_a_folder_that_must_not_be_written_to_says_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    with (
        pytest.raises(OSError, match="Read-only file system, set ISCE_RUNS .* to a folder that you may write to"),
        record.lock(tmp_path / "a"),
    ):
        pass


def test_find_prefers_runs_and_falls_back_to_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISCE_HOME", str(tmp_path))
    monkeypatch.setenv("ISCE_RUNS", "~/elsewhere")
    assert record.runs_dir() == Path.home() / "elsewhere"
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path / "elsewhere"))
    here, there = tmp_path / "elsewhere" / "a" / "r.json", tmp_path / "results" / "a" / "r.json"
    assert record.find(here) is None
    record.write_json(there, {"schema": record.SCHEMA, "from": "results"})
    assert (record.find(here) or {})["from"] == "results"
    record.write_json(here, {"schema": record.SCHEMA, "from": "runs"})
    assert (record.find(here) or {})["from"] == "runs"


def test_provenance_names_everything() -> None:
    found = record.provenance(torch.device("cpu"), "abc", 2.0, 100)
    assert found["images_per_second"] == 50.0
    assert found["device"] == "cpu"
    assert found["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert {"commit", "dirty", "python", "device_name", "precision", "data_sha256", "seconds", "finished"} <= set(found)
    json.dumps(found)


def test_the_precision_of_a_cpu_is_told_beside_pytorch_s_newer_settings() -> None:
    """Reading the older flags of TF32 raises once a newer one was set: after the work, where a record would be written."""
    code = "import torch; torch.backends.cudnn.conv.fp32_precision = 'ieee'; from isce import record; "
    code += "print(record.provenance(record.pick_device('cpu'), '', 1.0, 1)['precision'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("float32\n", 0), done.stderr


def test_code_outside_its_checkout_names_no_commit_of_a_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the site-packages of an environment that lies in another repository."""
    monkeypatch.delenv("ISCE_COMMIT", raising=False)
    monkeypatch.setattr(record, "_git", lambda *_: "of another repository")
    monkeypatch.setattr(record, "CHECKOUT", tmp_path)
    record._source.cache_clear()
    assert record._source() == {"commit": "unknown", "dirty": None}
    record._source.cache_clear()


def test_a_copy_without_git_is_told_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    for git, told, commit in (("", "", "unknown"), ("", "1a2b", "1a2b"), ("3c4d", "1a2b", "1a2b")):
        monkeypatch.setattr(record, "_git", lambda *_, git=git: git)
        monkeypatch.setenv("ISCE_COMMIT", told)
        record._source.cache_clear()
        assert record._source() == {"commit": commit, "dirty": None}
    record._source.cache_clear()


def test_devices() -> None:
    assert record.pick_device("cpu") == torch.device("cpu")
    assert record.pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "meta", ""):
        with pytest.raises(ValueError, match="use auto, cpu, cuda"):
            record.pick_device(name)


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="'cuda:7' was asked for, but torch sees 1 CUDA GPU here"):
        record.pick_device("cuda:7")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_asked_for_and_absent() -> None:
    with pytest.raises(ValueError, match="no CUDA GPU here: use device='cpu'"):
        record.pick_device("cuda")


def test_a_gpu_computes_in_full_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    try:
        cudnn.allow_tf32 = matmul.allow_tf32 = True
        record.pick_device("cuda:0")
        assert (cudnn.allow_tf32, matmul.allow_tf32) == (False, False)
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


@pytest.mark.parametrize(
    ("convolutions", "products", "words"),
    [
        (False, False, "float32"),
        (False, True, "float32 (TF32 matrix products)"),
        (True, True, "float32 (TF32 convolutions and matrix products)"),
    ],
)
def test_precision_names_what_may_round(convolutions: bool, products: bool, words: str) -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    try:
        cudnn.allow_tf32, matmul.allow_tf32 = convolutions, products
        assert record.precision(torch.device("cuda")) == words
        assert record.precision(torch.device("cpu")) == "float32"
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def namespace(**values: object) -> dict[str, object]:
    kinds = {"lr": float, "method": str, "n": int, "eps": list, "epochs": int | None, "save": bool}
    defaults = {"lr": 0.1, "method": "isce", "n": 3, "eps": [1.0], "epochs": None, "save": False}
    return {"__annotations__": kinds, "In": [""], "Out": {}, "_dh": [], **defaults, **values}


def test_check_parameters_accepts_what_is_right() -> None:
    given = namespace(lr=1, epochs=5, method=5)
    record.check_parameters(given)
    assert given["method"] == "5"
    assert given["lr"] == 1.0
    assert type(given["lr"]) is float
    for text in ("true", "false"):  # papermill's `-p save true` arrives as text
        record.check_parameters(given := namespace(save=text))
        assert given["save"] is (text == "true")


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({"lr": "1e-3"}, TypeError, "parameter lr must be float, got '1e-3'.*YAML"),
        ({"n": 1.5}, TypeError, "parameter n must be int"),
        ({"n": True}, TypeError, "parameter n must be int"),
        ({"save": "yes"}, TypeError, "parameter save must be bool"),
        ({"epochs": "5"}, TypeError, "parameter epochs must be int or None"),
        ({"lr": math.nan}, ValueError, "must be a finite number"),
        ({"eps": ["1e-3", 1.0]}, TypeError, r"parameter eps must be a list of numbers, got \['1e-3', 1.0\].*YAML"),
        ({"eps": [0.5, True]}, TypeError, "must be a list of numbers"),
        ({"eps": [0.5, math.inf]}, ValueError, "must be finite numbers"),
        (
            {"eps": 1.0},
            TypeError,
            r"parameter eps must be list, got 1.0 of type float \(papermill: -y \"{eps: \[1.0\]}\"\)",
        ),
        ({"eps": []}, ValueError, "at least one number"),
        ({"epoch": 5}, ValueError, r"unknown parameter 'epoch' \(did you mean 'epochs'\?\)"),
    ],
)
def test_check_parameters_refuses_what_is_wrong(values: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        record.check_parameters(namespace(**values))
    assert "\n" not in str(caught.value)


def test_check_parameters_runs_again_in_the_same_kernel() -> None:
    """By then the notebook's own names are there; a parameter that was edited is still checked."""
    given = namespace()
    record.check_parameters(given)
    given |= {"rows": [], "names": "sce,isce"}
    record.check_parameters(given)
    given["lr"] = "1e-3"
    with pytest.raises(TypeError, match="parameter lr must be float"):
        record.check_parameters(given)


def test_check_parameters_needs_declarations() -> None:
    with pytest.raises(ValueError, match="no parameters declared"):
        record.check_parameters({"a": 1})


def test_paths_do_not_depend_on_the_working_directory(tmp_path: Path) -> None:
    code = "from isce import record; print(record.home(), record.data_dir(), record.figures_dir())"
    outputs = {
        subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True).stdout
        for cwd in (tmp_path, Path.home())
    }
    assert len(outputs) == 1


def test_who_waits_for_another_process_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "PATIENCE", 0.05)
    got = threading.Event()

    def wait() -> None:
        with record.lock(tmp_path / "run" / "it"):
            got.set()

    waiting = threading.Thread(target=wait)
    with record.lock(tmp_path / "run" / "it"):
        waiting.start()
        assert not got.wait(0.5)
    assert got.wait(10)
    waiting.join()
    assert capsys.readouterr().err == "isce: waits for another process that makes run/it\n"
    with record.lock(tmp_path / "run" / "it"):
        assert capsys.readouterr().err == ""


def test_a_gpu_that_torch_cannot_use_is_spoken_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(record, "NVIDIA", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    record._say_once.cache_clear()
    assert record.pick_device().type == record.pick_device().type == "cpu"
    words = capsys.readouterr().err
    assert words.count("an NVIDIA GPU is here, but torch") == 1
    record._say_once.cache_clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden on purpose
    record.pick_device()
    assert capsys.readouterr().err == ""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(record, "NVIDIA", tmp_path / "none")
    record.pick_device()
    assert capsys.readouterr().err == ""


def test_runs_may_be_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called by the name that one gave, as for GOAL, not by what it leads to."""
    (tmp_path / "large disk").mkdir()
    (tmp_path / "runs").symlink_to("large disk")
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path / "x" / ".." / "runs"))
    assert record.runs_dir() == tmp_path / "runs"


def test_a_styled_table_is_written_the_same_again_and_shares_no_name() -> None:
    one, other = (pd.DataFrame({("a", "b"): [value]}, index=["I-SCE"]) for value in (1.0, 2.0))
    first, again, different = (record.named(table.style).to_html() for table in (one, one, other))
    assert first == again
    assert "T_" in first
    assert not set(re.findall(r'id="(T_\w+?)[_"]', first)) & set(re.findall(r'id="(T_\w+?)[_"]', different))
