"""The evaluation of one cell in a child process: metrics.csv and summary.json by `evaluation.evaluate_folders`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from swin_umamba_nnunet.benchmark.watchdog import end_with_parent


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate a folder of predictions in the plain convention."""
    parser = argparse.ArgumentParser(prog="scores", description="scores of one cell")
    for name in ("references", "predictions", "evaluation"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--dataset-json", type=Path)
    parser.add_argument("--file-ending")
    args = parser.parse_args(arguments)
    end_with_parent()
    from swin_umamba_nnunet.evaluation import Plain, evaluate_folders

    evaluate_folders(
        args.references,
        args.predictions,
        protocol=Plain(dataset_json=args.dataset_json),
        file_ending=args.file_ending,
        output=args.evaluation,
    )


if __name__ == "__main__":
    main()
