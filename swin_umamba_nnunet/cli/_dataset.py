"""A dataset given by number or name, as several verbs take it."""

import os
from pathlib import Path

from swin_umamba_nnunet.cli.errors import CliError


def dataset_json_of(dataset: str) -> Path:
    """dataset.json of a dataset given by number or name, in nnUNet_raw or nnUNet_preprocessed.

    Raises:
        CliError: it is in neither, or the number is that of several datasets.
    """
    pattern = f"Dataset{int(dataset):03d}_*" if dataset.isdecimal() else dataset
    searched = []
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        folder = os.environ.get(variable)
        if not folder:
            continue
        searched.append(folder)
        found = sorted(Path(folder).glob(f"{pattern}/dataset.json"))
        if len(found) > 1:
            names = ", ".join(path.parent.name for path in found)
            raise CliError(f"--dataset {dataset} is not unique: {names}; give one of these names")
        if found:
            return found[0]
    if not searched:
        raise CliError(
            f"--dataset {dataset} is looked up in nnUNet_raw, and that environment variable is not set; set it, or "
            "name the file with --dataset-json"
        )
    raise CliError(
        f"--dataset {dataset}: no {pattern}/dataset.json in {' or '.join(searched)}; name the file with --dataset-json"
    )
