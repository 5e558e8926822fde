"""README against the package: the table of trainers is the catalogue's, and the commands it shows exist."""

import re
from pathlib import Path

import pytest

from swin_umamba_nnunet import catalogue
from swin_umamba_nnunet.cli import VERBS
from tests.installed import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def row(record: catalogue.TrainerRecord) -> str:
    """A trainer's line in README's table."""
    start = "ImageNet" if record.pretrained else "random"
    dims = ", ".join(f"{axes}D" for axes in record.dims)
    supervision = "yes" if record.deep_supervision else "no"
    size = f"{record.parameters_million:.2f} M"
    return f"| `{record.name}` | {record.summary} | {size} | {start} | {supervision} | {dims} | {record.epochs} |"


def test_the_table_of_trainers_is_the_catalogue():
    rows = [line for line in README.splitlines() if line.startswith("| `nnUNetTrainer")]
    assert rows == [row(record) for record in catalogue.TRAINERS]


@pytest.mark.parametrize("network", catalogue.NETWORKS, ids=lambda network: network.name)
def test_every_network_is_named(network):
    title = network.title.removesuffix(" on VMamba's second generation")
    assert title.replace("_", " ") in README.replace("_", " ")


def test_every_verb_is_explained_and_no_other():
    shown = {name for name in re.findall(r"swin-umamba ([a-z][a-z-]+)", README) if name != "benchmark"}
    assert shown | {"benchmark"} == set(VERBS)


def test_every_trainer_named_in_the_text_exists():
    named = set(re.findall(r"\bnnUNetTrainer(?:\w*UMamba|VMUNet)[A-Za-z0-9]*(?:_[a-z0-9]+)?\b", README))
    own = {"nnUNetTrainerUMambaPaperNoMamba"}  # examples of the reader's own classes
    assert named - own <= set(catalogue.trainer_names())


def test_the_first_training_needs_no_file_and_the_first_that_does_says_so():
    trainings = [line for line in README.splitlines() if line.startswith("    nnUNetv2_train ")]
    records = [catalogue.get_trainer(line.split("-tr ")[1].split()[0]) for line in trainings]
    assert not records[0].pretrained
    assert "ImageNet" in next(line for line, record in zip(trainings, records) if record.pretrained)


def test_links_into_the_repository_lead_somewhere():
    for target in re.findall(r"\]\((?!http|#)([^)]+)\)", README):
        assert Path(ROOT, target).exists(), target


if __name__ == "__main__":
    print("\n".join(map(row, catalogue.TRAINERS)))
