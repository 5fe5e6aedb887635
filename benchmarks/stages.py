"""How long each stage of a profile takes: its trainings and attacks in one process, without notebooks.

    python benchmarks/stages.py --profile full --at-once 4 --minutes 9
    python benchmarks/stages.py --profile cpu --only mnist/lenet5
    python benchmarks/stages.py --profile full --only cifar10/resnet32 --methods sce,isce,mmc --seeds 0 1 --n 1000 --minutes 9

Seed by seed and network by network, shallow ones first: training and the attacks of the tables, the strongest; then Figure
3's grids, Figure 4, arm A, and the networks' further attacks. What has a record is not made again, so a run that was stopped is gone
on with, and `make replicate` finds it all done. Seconds add up over such runs, in results/benchmarks/stages-<profile>-<device>.json,
a row per stage.

Where time is short --only, --methods and --seeds say what is made first, --n on how many images: the same without them goes
on from there. --minutes: nothing is begun after them. A kill leaves a training's finished epochs and
whole attacks; on a CPU what an attack saves every few minutes, too.
"""

import argparse
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

from isce import evaluate, evaluations, methods, profiles, record, train
from isce.evaluations import Evaluation


def kind(profile: profiles.Profile, block: str, net: str, attack: str) -> str:
    if attack in evaluate.parse(profile.strongest):
        return "strongest"
    return "attacks of the tables" if attack in profile.table_attacks(block, net) else "further attacks"


def stages(profile: profiles.Profile) -> Iterator[tuple[str, list[Evaluation]]]:
    """(name, attacks) of all that a profile's tables, Figures 3 and 4 and arm A need. A network is trained in the first stage that
    attacks it."""
    found: dict[str, dict[str, list[Evaluation]]] = {}
    for block, net, method, seed in sorted(profile.runs, key=lambda run: (run[3], run[1] == "resnet32")):
        group = found.setdefault(f"{block}/{net} seed {seed}", {})
        for evaluation in profile.evaluations(block, net, method, seed):
            group.setdefault(kind(profile, block, net, evaluation.attack), []).append(evaluation)
    for name, group in found.items():
        for stage in ("attacks of the tables", "strongest"):
            yield f"{name}: {stage}", group.get(stage, [])
    yield from profile.beside_tables().items()
    for name, group in found.items():
        yield f"{name}: further attacks", group.get("further attacks", [])


def chosen(evaluations: list[Evaluation], names: list[str], seeds: list[int], n: int | None) -> list[Evaluation]:
    """Those of a stage that the command line asks for, on at most n images but where all count; networks that take long to
    train come last."""
    asked = [e for e in evaluations if e.spec.method in names and e.spec.seed in (seeds or [e.spec.seed])]
    asked = [
        dataclasses.replace(e, n=min(e.n or n, n)) if n and e.attack != "clean" and e.split == "test" else e
        for e in asked
    ]
    return sorted(asked, key=lambda e: e.spec.method == "at")


def networks(evaluation: Evaluation) -> list[train.Spec]:
    """What must be trained for an attack: the network, and the one that it is attacked through."""
    return [spec.trained() for spec in (evaluation.spec, evaluation.surrogate) if spec is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description="The seconds of each stage of a profile, in one process.")
    parser.add_argument("--profile", default="digits")
    parser.add_argument("--only", default="", help="stages whose name contains one of these, separated by commas")
    parser.add_argument("--methods", default="all,controls", help="of these alone, separated by commas")
    parser.add_argument("--seeds", type=int, nargs="+", default=[], help="of these alone")
    parser.add_argument("--n", type=int, default=None, help="attack at most so many test images")
    parser.add_argument("--at-once", type=int, default=1, help="trainings side by side on a GPU")
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    if args.minutes is not None and not args.minutes >= 0:
        parser.error(f"--minutes must be at least 0, got {args.minutes:g}")
    if args.n is not None and args.n < 1:
        parser.error(f"--n must be at least 1, got {args.n}")
    try:
        profile, device = profiles.load(args.profile), record.pick_device(args.device)
        names = methods.parse(args.methods)
    except ValueError as error:
        parser.error(str(error))
    parts = [part.strip() for part in args.only.split(",")]
    asked = {name: all_of_it for name, all_of_it in stages(profile) if any(part in name for part in parts)}
    if not asked:
        parser.error(f"no stage's name contains {args.only!r}: {', '.join(name for name, _ in stages(profile))}")
    if not any(chosen(all_of_it, names, args.seeds, args.n) for all_of_it in asked.values()):
        parser.error(f"nothing is asked for: {profile.name} has none of these methods with these seeds in these stages")
    path = record.results_dir() / "benchmarks" / f"stages-{profile.name}-{device.type}.json"
    start = time.perf_counter()

    def written() -> dict[str, dict[str, Any]]:
        return {row["stage"]: row for row in (record.read_json(path) or {"rows": []})["rows"]}

    def left() -> bool:
        return args.minutes is None or time.perf_counter() - start < 60 * args.minutes

    for name, all_of_it in asked.items():
        wanted = chosen(all_of_it, names, args.seeds, args.n)
        specs = [spec for e in wanted if evaluations.find_whole(e) is None for spec in networks(e)]
        missing = [spec for spec in {spec.run_id: spec for spec in specs}.values() if not train.known(spec)]
        began, attacked = time.perf_counter(), 0
        train.train_all(missing, args.device, progress=False, at_once=args.at_once, more=left)
        trained = sum(map(train.known, missing))
        # Found anew: a network that only results/ had records of is another now, and they do not count beside it.
        waiting = [e for e in wanted if evaluations.find_whole(e) is None]
        between = time.perf_counter()
        for evaluation in waiting:
            if left():
                evaluations.load_or_evaluate(evaluation, args.device, progress=False)
                attacked += 1
        if trained or attacked:
            made = {"trained": trained, "training, s": between - began}
            made |= {"attacked": attacked, "attacks, s": time.perf_counter() - between}
            source = record.provenance(device, "", time.perf_counter() - start, 0)
            with record.lock(path):  # another process may be at another part of the profile
                rows = written()
                sums = {key: round(rows.get(name, {}).get(key, 0) + more, 1) for key, more in made.items()}
                rows[name] = {"stage": name, **sums, "at once": args.at_once}
                record.write_json(path, {"rows": list(rows.values()), "provenance": source})
            print("  ".join(f"{key} {value}" for key, value in rows[name].items()), flush=True)
        if not left():
            print(f"stopped after {args.minutes:g} minutes; the same command goes on")
            break
    spent = [row["training, s"] + row["attacks, s"] for row in written().values()]
    print(f"{sum(spent):.0f} s in all: {path}")


if __name__ == "__main__":
    main()
