"""Choose a method's settings on validation images, before it is compared: a method that trains badly says nothing of its loss.

    python benchmarks/tune.py cifar10 cnn8 arcface --epochs 5 m=0.1,0.2,0.3,0.5

Trains the method with every combination of the options given (`load_or_train`: what is in runs/ is not trained again) and
writes results/tuning/<data set>-<backbone>-<method>.json: the options, the accuracy on the 5,000 validation images and the
run of each. The choice is then made by hand in `isce.methods`, `by_dataset`. No test image is looked at.
"""

import argparse
import itertools
import time

from isce import data, record, train


def main() -> None:
    parser = argparse.ArgumentParser(description="A method's settings chosen on validation images.")
    parser.add_argument("dataset")
    parser.add_argument("backbone")
    parser.add_argument("method")
    parser.add_argument("options", nargs="+", help="name=value,value,...")
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    try:
        names, texts = zip(*(option.split("=") for option in args.options), strict=True)
        values = [[float(value) for value in text.split(",")] for text in texts]
    except ValueError:
        parser.error(f"options look like m=0.1,0.2 s=30, got {' '.join(args.options)}")
    try:
        place = record.pick_device(args.device)
    except ValueError as error:
        parser.error(str(error))
    start, rows = time.perf_counter(), []
    for chosen in itertools.product(*values):
        options = dict(zip(names, chosen, strict=True))
        try:
            spec = train.Spec(args.dataset, args.backbone, args.method, args.seed, args.epochs, options=options)
        except ValueError as error:
            parser.error(str(error))
        train.load_or_train(spec, args.device)
        metrics = (train.result(spec) or {})["metrics"]
        rows.append(
            {"options": spec.options, "validation_accuracy": metrics["validation_accuracy"], "run_id": spec.run_id}
        )
        print(
            f"{options}: {metrics['validation_accuracy']:.2f} % of {metrics['validation_n']} validation images",
            flush=True,
        )
    source = record.provenance(
        place, data.DATASETS[args.dataset].sha256, time.perf_counter() - start, metrics["validation_n"]
    )
    content = {
        "kind": "tuning",
        "epochs": spec.epochs,
        "n": metrics["validation_n"],
        "rows": rows,
    }
    path = record.results_dir() / "tuning" / f"{args.dataset}-{args.backbone}-{args.method}.json"
    record.write_json(path, content | {"provenance": source})
    print(path)


if __name__ == "__main__":
    main()
