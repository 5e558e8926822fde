"""README and the pages in `docs/` against the package: links lead somewhere, commands parse, tables say what is so."""

import argparse
import ast
import importlib
import itertools
import os
import re
import shlex
import subprocess
import sys

import pytest

from swin_umamba_nnunet import catalogue, evaluation, ops, settings
from swin_umamba_nnunet.benchmark.config import build_config, read_file
from swin_umamba_nnunet.cli import VERBS, convert
from tests import warm
from tests.commands import parse_printed
from tests.datasets.trees import write_case
from tests.installed import ROOT
from tests.jsons import load
from tests.workspace import installed_editable

DOCS = ROOT / "swin_umamba_nnunet" / "docs"
README = ROOT / "README.md"
PAGES = sorted(DOCS.glob("*.md"))
FURTHER = ("pretrained_weights", "tests/speed/results", "swin_umamba_nnunet/benchmark/example")
FILES = [README, *PAGES, *(ROOT / folder / "README.md" for folder in FURTHER)]

# What stands for something of the reader's, where a command's parser wants a number.
STAND_INS = {"DATASET": "1", "OTHER_DATASET": "2"}
OWN_TRAINERS = {"nnUNetTrainerUMambaPaperNoMamba"}  # examples of classes of the reader's own
COMMAND = re.compile(r"(?:swin-umamba|nnUNetv2_[a-z_]+)(?: .*|$)")


def read(path):
    return path.read_text(encoding="utf-8")


def rel(path):
    return path.relative_to(ROOT).as_posix()


def blocks(text, *kinds):
    """The fenced blocks of these kinds; "" is the first word of none."""
    for info, body in re.findall(r"^```(.*)\n([\s\S]*?)^```$", text, re.MULTILINE):
        if info in kinds:
            yield body


def command_lines(text):
    """Commands in blocks, indented or fenced for a shell, without comments; what stands in for the reader's filled in.

    A line that joins several commands with && is several.
    """
    indented = re.findall(r"^    (.*)$", re.sub(r"^```[\s\S]*?^```$", "", text, flags=re.MULTILINE), re.MULTILINE)
    fenced = [line for body in blocks(text, "sh", "sh tutorial") for line in body.splitlines()]
    lines = []
    for line in [*indented, *fenced]:
        for part in re.sub(r"\s+#\s.*$", "", line).split(" && "):
            if COMMAND.fullmatch(part.strip()):
                lines.append(" ".join(STAND_INS.get(word, word) for word in part.split()))
    return lines


def inline_commands(text):
    """Commands within sentences and tables: they may lack what is required."""
    return {code for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text) if COMMAND.fullmatch(code)}


def table(text, head):
    """The rows below the table's head: first cell without backticks -> the other cells."""
    lines = text.split(f"| {head} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {row[0].strip("`"): row[1:] for row in rows}


def slug(heading):
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).replace(" ", "-")


def anchors(path):
    text = re.sub(r"^```[\s\S]*?^```$", "", read(path), flags=re.MULTILINE)
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def links(path):
    """(file, anchor) of every link that leads to a file of the repository."""
    found = re.findall(r"\]\((?!https?:)([^)\s]*?)(?:#([^)\s]+))?\)", read(path))
    return [((path.parent / target).resolve() if target else path, anchor) for target, anchor in found]


every_page = pytest.mark.parametrize("path", FILES, ids=rel)

# ------------------------------------------------------------------------------------------------- links


@every_page
def test_links_lead_somewhere(path):
    for target, anchor in links(path):
        assert target.exists(), target
        assert not anchor or anchor in anchors(target), f"{rel(target)} has no heading #{anchor}"


def test_pages_are_linked_both_ways():
    assert {target for target, _ in links(README)} >= set(PAGES)
    for page in PAGES:
        targets = {target for target, _ in links(page)}
        assert README in targets, page
        assert targets & ({*PAGES} - {page}), page


def test_one_reads_the_front_page():
    assert len(read(README).splitlines()) <= 130
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", read(README))
    assert len(pictures) == 1
    assert (ROOT / pictures[0]).stat().st_size < 120_000


# ------------------------------------------------------------------------------------------------- commands


@every_page
def test_commands_parse(path):
    for line in command_lines(read(path)):
        parse_printed(line)


@every_page
def test_commands_in_sentences_are_known(path, capsys):
    for line in inline_commands(read(path)):
        words = [STAND_INS.get(word, word) for word in shlex.split(line) if word != "..."]
        if len(words) == 1 or words[1] == "VERB":
            continue
        capsys.readouterr()
        try:
            parse_printed(shlex.join(words))
        except AssertionError:
            said = capsys.readouterr().err
            assert "required" in said, f"{line}: {said}"


@every_page
def test_targets_and_modules_exist(path):
    text = read(path)
    targets = set(re.findall(r"(?:^    |`)make ([a-z-]+)", text, re.MULTILINE))
    makefile = read(ROOT / "Makefile")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), targets
    for module in re.findall(r"python -m ((?:tests|swin_umamba_nnunet)[a-z_.]*)", text):
        assert importlib.util.find_spec(module), module
    for code in re.findall(r"`((?:[\w-]+/)+[\w-]+\.(?:py|sh))`", text):
        places = (ROOT, DOCS.parent, path.parent)
        assert "NAME" in code or "VERB" in code or any((place / code).exists() for place in places), code
    for name, file in re.findall(r"`(\w+)` (?:of|in|\() ?`([\w/]+\.py)`", text):
        assert re.search(rf"\b{name}\b", read(DOCS.parent / file)), f"{name} in {file}"
    for dotted in re.findall(r"`(swin_umamba_nnunet(?:\.\w+)+)`", text):
        module, _, name = dotted.rpartition(".")
        assert hasattr(importlib.import_module(module), name) or importlib.util.find_spec(dotted), dotted


@every_page
def test_python_is_python_and_imports_what_exists(path):
    for body in blocks(read(path), "python"):
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("swin_umamba_nnunet"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def test_every_verb_is_explained_and_no_other():
    assert {row.removeprefix("swin-umamba ") for row in table(read(README), "verb")} == set(VERBS)


# ------------------------------------------------------------------------------------------------- trainers


def row(record):
    """A trainer's line in the table of all trainers."""
    supervision = "yes" if record.deep_supervision else "no"
    return f"| `{record.name}` | {record.summary} | {' | '.join(facts(record, supervision))} | {record.epochs} |"


def facts(record, *between):
    start = "ImageNet" if record.pretrained else "random"
    return [f"{record.parameters_million:.2f} M", start, *between, ", ".join(f"{axes}D" for axes in record.dims)]


def test_the_table_of_trainers_is_the_catalogue():
    text = read(DOCS / "trainers.md")
    rows = [line for line in text.splitlines() if line.startswith("| `nnUNetTrainer")]
    assert rows == [row(record) for record in catalogue.TRAINERS]
    section = text.split("## Lengths", 1)[1].split("\n## ", 1)[0]
    assert set(re.findall(r"`(_[a-z0-9]+)`", section)) == {length.suffix for length in catalogue.LENGTHS}


def test_the_front_page_has_a_trainer_of_each_network():
    rows = table(read(README), "`-tr`")
    records = [catalogue.get_trainer(name) for name in rows]
    assert sorted(record.network for record in records) == sorted(network.name for network in catalogue.NETWORKS)
    for record, (title, _, *said) in zip(records, rows.values()):
        assert [title, *said] == [catalogue.get_network(record.network).title, *facts(record)]
    assert f"All {len(catalogue.TRAINERS)} trainers" in read(README)


@every_page
def test_every_trainer_named_in_the_text_exists(path):
    named = set(re.findall(r"\bnnUNetTrainer(?:\w*UMamba|VMUNet)[A-Za-z0-9]*(?:_[a-z0-9]+)?\b", read(path)))
    assert named - OWN_TRAINERS <= set(catalogue.trainer_names())


def test_the_first_training_needs_no_file_and_the_first_that_does_says_so():
    trainings = [line for line in read(README).splitlines() if line.startswith("    nnUNetv2_train ")]
    records = [catalogue.get_trainer(line.split("-tr ")[1].split()[0]) for line in trainings]
    assert not records[0].pretrained
    assert "ImageNet" in next(line for line, record in zip(trainings, records) if record.pretrained)


# ------------------------------------------------------------------------------------------------- other tables


def test_the_table_of_settings_is_the_one_that_is_read():
    assert table(read(DOCS / "settings.md"), "environment variable") == {
        name: [meaning] for name, meaning in settings.MEANINGS.items()
    }
    named = {name for path in FILES for name in re.findall(r"SWIN_UMAMBA_[A-Z_]+", read(path))}
    assert named == set(settings.MEANINGS)


def test_backends_protocols_and_layouts_are_those_there_are():
    assert list(table(read(DOCS / "backends-and-speed.md"), "backend")) == list(ops.BACKENDS)
    assert {"plain", *table(read(DOCS / "evaluating.md"), "`--protocol`")} == set(evaluation.PROTOCOLS)
    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    (layouts,) = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    assert set(table(read(DOCS / "your-data.md"), "layout")) == set(layouts)


def test_configurations_of_benchmarks_are_taken(tmp_path):
    first, *others = blocks(read(DOCS / "comparing.md"), "toml")
    for other in ("", *others):  # none, whole, a table for the end, or a line for the beginning
        parts = {"": (first,), "#": (other,), "[": (first, other)}.get(other[:1], (other, first))
        (tmp_path / "bench.toml").write_text("".join(parts), encoding="utf-8")
        assert build_config(read_file(tmp_path / "bench.toml")).trainers


# ------------------------------------------------------------------------------------------------- the tutorial

# In place of the real one and under its name: what it leaves behind, but sooner.
TRAINER = """
from swin_umamba_nnunet import trainers


class nnUNetTrainerSwinUMambaDScratch_1epoch(trainers.nnUNetTrainerSwinUMambaDScratch_1epoch):
    network_settings = {"depths": (1, 1, 1, 1), "decoder_depth": 1, "width": 16, "d_state": 2}
    num_iterations_per_epoch = 2
    num_val_iterations_per_epoch = 1

    def perform_actual_validation(self, save_probabilities=False):
        pass
"""
# Eight workers that each import torch take minutes on a small machine; a large folder needs them.
FEWER_WORKERS = {"nnUNetv2_plan_and_preprocess": "-npfp 1 -np 1", "nnUNetv2_predict": "-npp 0 -nps 0"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the tutorial is typed into a POSIX shell")
def test_the_tutorial_works_as_it_stands(tmp_path, tmp_path_factory, warm_python):
    environment = installed_editable(tmp_path_factory)
    lines = "".join(blocks(read(DOCS / "your-data.md"), "sh tutorial"))
    commands, own = tmp_path / "bin", tmp_path / "own"
    commands.mkdir()
    own.mkdir()
    (own / "shorter.py").write_text(TRAINER)
    for patient, letter in itertools.product(range(1, 8), "ab"):
        write_case(tmp_path / "polyps", f"P{patient:02d}_{letter}", patient)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("nnUNet", "SWIN_UMAMBA"))}
    variables = {
        **inherited,
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "nnUNet_extTrainer": str(own),
        "nnUNet_def_n_proc": "1",
        "nnUNet_n_proc_DA": "1",
        "OMP_NUM_THREADS": "1",
    }
    python = warm_python if warm.AVAILABLE else environment.python
    for name in {line.split()[0] for line in lines.splitlines()} - {"export"}:
        script, further = commands / name, FEWER_WORKERS.get(name, "")
        script.write_text(f'#!/bin/sh\nexec "{python}" "{environment.script(name)}" "$@" {further}\n')
        script.chmod(0o700)
    done = subprocess.run(
        ["bash", "-euc", lines], cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    raw, preprocessed = (tmp_path / "nnunet" / part / "Dataset001_Polyps" for part in ("raw", "preprocessed"))
    assert load(preprocessed / "splits_final.json") == load(raw / "splits_final.json")  # by nnU-Net, as it plans
    images = {path.name.replace("_0000", "") for path in (raw / "imagesTs").iterdir()}
    assert {path.name for path in (tmp_path / "predicted").glob("*.png")} == images
    assert (tmp_path / "scores" / "metrics.csv").is_file()
    assert list((tmp_path / "predicted_overlay").glob("*.png"))


if __name__ == "__main__":
    print("\n".join(map(row, catalogue.TRAINERS)))
