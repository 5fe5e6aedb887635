"""What makes a number count: run identity, provenance, atomic writes, intervals, and where things lie.

Paths come from here, never from the working directory, because Jupyter, nbval and papermill each start elsewhere.
"""

import difflib
import errno
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import types
import typing
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

CHECKOUT = Path(__file__).resolve().parents[1]
os.umask(UMASK := os.umask(0o077))  # what files are not allowed to be, which can be read by setting it alone
SCHEMA = 1  # of result.json; raise it when a field changes its meaning


def in_checkout() -> bool:
    """Whether this code lies in its repository, not in an environment's site-packages."""
    return (CHECKOUT / "pyproject.toml").is_file()


def home() -> Path:
    """The folder of runs/, data/, figures/, results/ and config/: $ISCE_HOME, else the checkout, else ~/.isce."""
    if os.environ.get("ISCE_HOME"):
        return Path(os.environ["ISCE_HOME"]).expanduser().resolve()
    return CHECKOUT if in_checkout() else Path.home() / ".isce"


def _absolute(path: str | Path) -> Path:
    """Links stay: runs/ may be one, to a larger disk, and is called by its own name all the same."""
    return Path(os.path.abspath(Path(path).expanduser()))


def runs_dir() -> Path:
    """Work in progress; $ISCE_RUNS moves it (the tests do, so that nothing found there hides a missing step)."""
    return _absolute(os.environ.get("ISCE_RUNS") or home() / "runs")


def data_dir() -> Path:
    """Data sets in torchvision's layout; $ISCE_DATA moves it."""
    return _absolute(os.environ.get("ISCE_DATA") or home() / "data")


def figures_dir() -> Path:
    return home() / "figures"


def results_dir() -> Path:
    return home() / "results"


def config_dir() -> Path:
    return home() / "config"


def committed(path: Path) -> Path:
    """Where results/ has what runs/ has at `path`."""
    return results_dir() / path.relative_to(runs_dir())


def find(path: Path) -> dict[str, Any] | None:
    """The record at `path` under runs/, else the committed one at the same place under results/."""
    return read_json(path) or read_json(committed(path))


def run_id(payload: dict[str, Any]) -> str:
    """Ten hex digits that name a specification: SHA-256 of its canonical JSON."""
    return hashlib.sha256(json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:10]


def named(style: "Styler") -> "Styler":
    """A table's style under a name that its cells give, where pandas draws one at random: on a page it shares its colours with no other
    table, and the same table is written the same."""
    return style.set_uuid(run_id({"of": style.data.astype(str).to_dict("split")}))  # type: ignore[attr-defined]


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success rename it there, on failure leave nothing behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")  # two machines may share a folder, and a pid
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        with suppress(OSError):  # not every file system has modes
            os.chmod(part, 0o666 & ~UMASK)  # safetensors hides what it writes from all others
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a record, of this SCHEMA where it names none."""
    with atomic(path) as part:
        part.write_text(json.dumps({"schema": SCHEMA} | content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The record at `path`, or None where there is none, it is damaged, or it is of another schema. OSError where it cannot be read
    now: it may be sound, and must not be made anew."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.get("schema") == SCHEMA else None


PATIENCE = 5.0  # seconds, before one who waits says so


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """An exclusive lock on a run's folder, a record or a data set: two jobs never compute the same twice. Freed when its holder dies."""
    held = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held.acquire(timeout=PATIENCE)
    except Timeout:
        log(f"isce: waits for another process that makes {path.parent.name}/{path.name}")
        held.acquire()
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise OSError(
            error.errno,
            f"{error.strerror}, set ISCE_RUNS (for data sets: ISCE_DATA) to a folder that you may write to",
            str(path),
        ) from None
    try:
        yield
    finally:
        held.release()


NVIDIA = Path("/dev/nvidia0")


@lru_cache
def _say_once(words: str) -> None:
    log(words)


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is cuda where there is one, else cpu. On a GPU float32 is from here on float32 in full, not rounded to TF32.

    Raises:
        ValueError, TypeError: an unknown device, or cuda asked for where there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and NVIDIA.exists() and "CUDA_VISIBLE_DEVICES" not in os.environ:
            _say_once(
                f"isce: an NVIDIA GPU is here, but torch {torch.__version__} cannot use it (is its driver too old?): using the CPU"
            )
    try:
        device = torch.device(name)
    except TypeError:
        raise TypeError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}") from None
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} was asked for, but torch sees no CUDA GPU here: use device='cpu' or 'auto'")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r} is not supported: use auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        if (device.index or 0) >= (count := torch.cuda.device_count()):
            raise ValueError(
                f"device {name!r} was asked for, but torch sees {count} CUDA GPU{'s' * (count > 1)} here, from cuda:0"
            )
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        precision(device)  # what a record will state can be read: known before the work, not after
    return device


def _git(*args: str) -> str:
    try:
        done = subprocess.run(["git", *args], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@lru_cache
def _source() -> dict[str, Any]:
    """The commit of the code; ISCE_COMMIT says it where git cannot, or knows another: of a mere copy of the files (`dirty`: null)."""
    if told := os.environ.get("ISCE_COMMIT"):
        return {"commit": told, "dirty": None}
    commit = _git("rev-parse", "HEAD") if in_checkout() else ""  # elsewhere it is a stranger's
    return {"commit": commit or "unknown", "dirty": bool(_git("status", "--porcelain", "--", ".")) if commit else None}


_source()  # of the code as it is loaded now: a checkout may move on before a long run ends


def precision(device: torch.device) -> str:
    """float32, and what on a GPU is allowed to round to TF32."""
    if device.type != "cuda":
        return "float32"
    allowed = {
        "convolutions": torch.backends.cudnn.allow_tf32,
        "matrix products": torch.backends.cuda.matmul.allow_tf32,
    }
    rounded = [what for what, tf32 in allowed.items() if tf32]
    return "float32" + (f" (TF32 {' and '.join(rounded)})" if rounded else "")


def machine(device: torch.device) -> str:
    """The processor's name, of a CPU with how many of them there are."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        models = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        if models:
            return f"{models[0]} x {len(models)}"
    return platform.processor() or platform.machine()


def provenance(device: torch.device, data_checksum: str, seconds: float, images: int) -> dict[str, Any]:
    """Where a result comes from. `images` counts those processed in `seconds` (training: epochs x training images)."""
    packages = {p: importlib.metadata.version(p) for p in ("torch", "torchvision", "numpy", "scikit-learn")}
    return {
        **_source(),
        "python": platform.python_version(),
        "packages": packages,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "device": device.type,
        "device_name": machine(device),
        "threads": torch.get_num_threads(),
        "precision": precision(device),
        "data_sha256": data_checksum,
        "seconds": round(seconds, 3),
        "images_per_second": float(f"{images / seconds:.4g}") if seconds > 0 else None,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def wilson(correct: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval for a proportion, in % (Wilson 1927). A mean over seeds need not be whole.

    Raises:
        ValueError: n < 1 or correct outside 0..n.
    """
    if not 0 <= correct <= n or n < 1:
        raise ValueError(f"want 0 <= correct <= n and n >= 1, got {correct} of {n}")
    z = 1.959964  # of 97.5 %
    p, zz = correct / n, z * z
    centre = (p + zz / (2 * n)) / (1 + zz / n)
    half = z / (1 + zz / n) * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def choose(kind: str, name: Any, known: typing.Iterable[Any]) -> str:
    """`name` if it is one of `known`, else one clear ValueError that lists them and guesses what was meant."""
    names = [str(k) for k in known]
    if str(name) in names:
        return str(name)
    close = difflib.get_close_matches(str(name), names, n=1)
    raise ValueError(
        f"unknown {kind} {name!r}{f' (did you mean {close[0]!r}?)' if close else ''}: use one of {', '.join(names)}"
    )


_EXAMPLES = {list: "[1.0]", dict: "{name: 1}"}  # papermill's -p passes neither
_YAML = " (write 0.001 or 1.0e-3: YAML reads 1e-3 as text)"


def check_parameters(namespace: dict[str, Any]) -> None:
    """Check a notebook's parameters after papermill injected its own: call as `check_parameters(globals())`.

    The cell tagged `parameters` declares each as `name: type = default`. Raises one clear error for a value of another
    type (such as `1e-3` from YAML, which arrives as a string; lists hold numbers) and for an injected name that the notebook does
    not have. In a kernel where this has passed before, the notebook's own names are there too, and pass for what they are.

    Raises:
        TypeError: a value is not of its declared type. ValueError: an unknown parameter, a NaN or infinite one, an empty list.
    """
    declared: dict[str, Any] = namespace.get("__annotations__", {})
    if not declared:
        raise ValueError("no parameters declared: the cell tagged `parameters` must hold lines `name: type = default`")
    for name, kind in declared.items():
        value, allowed = namespace[name], typing.get_args(kind) or (kind,)
        if isinstance(value, int) and not isinstance(value, bool) and float in allowed and int not in allowed:
            value = namespace[name] = float(value)
        if isinstance(value, int) and not isinstance(value, bool) and allowed == (str,):  # papermill reads `-p table 5`
            value = namespace[name] = str(value)
        if value in ("true", "false") and allowed == (bool,):  # papermill knows `-p save True` alone, YAML both
            value = namespace[name] = value == "true"
        if not any(type(value) is t for t in allowed):
            hint = _YAML if float in allowed and isinstance(value, str) else ""
            if example := _EXAMPLES.get(allowed[0]):
                hint = f' (papermill: -y "{{{name}: {example}}}")'
            want = " or ".join("None" if t is types.NoneType else t.__name__ for t in allowed)
            raise TypeError(f"parameter {name} must be {want}, got {value!r} of type {type(value).__name__}{hint}")
        numbers = value if isinstance(value, list) else [value] if isinstance(value, float) else []
        if wrong := [v for v in numbers if isinstance(v, bool) or not isinstance(v, int | float)]:
            hint = _YAML if isinstance(wrong[0], str) else ""
            raise TypeError(f"parameter {name} must be a list of numbers, got {value!r}{hint}")
        if not all(map(math.isfinite, numbers)):
            raise ValueError(
                f"parameter {name} must be {'finite numbers' if value is numbers else 'a finite number'}, got {value}"
            )
        if isinstance(value, list) and not value:
            raise ValueError(f"parameter {name} must hold at least one number, got an empty list")
    if namespace.get("_parameters_checked"):
        return
    plain = (str, int, float, bool, list, tuple, dict, types.NoneType)
    for name, value in namespace.items():
        shell = name.startswith("_") or name in ("In", "Out", "exit", "quit")
        if name not in declared and not shell and isinstance(value, plain):
            choose("parameter", name, declared)
    namespace["_parameters_checked"] = True


def log(*words: object) -> None:
    """One line of progress on standard error, where nbval does not compare and a pipe does not mix it with results."""
    print(*words, file=sys.stderr, flush=True)
