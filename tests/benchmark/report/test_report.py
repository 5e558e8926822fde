"""The files of a report made from a tree: what they say, what they do not load, and that they are well-formed."""

import csv
import io
import math
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from swin_umamba_nnunet import cli
from swin_umamba_nnunet.benchmark.files import BenchmarkError
from swin_umamba_nnunet.benchmark.report import ReportOptions, build, words, write_report
from swin_umamba_nnunet.benchmark.report.analysis import analyse
from swin_umamba_nnunet.benchmark.report.collect import read_benchmark
from swin_umamba_nnunet.benchmark.report.published import OTHER_PROTOCOL, PUBLISHED
from swin_umamba_nnunet.evaluation.statistics import Bootstrap
from tests.benchmark.report import tree
from tests.jsons import dump, edit
from tests.messages import assert_names, raises

FEW = Bootstrap(100)
PLAIN = ReportOptions(pictures=0, bootstrap=Bootstrap(5))
VOID = {"meta", "img", "br", "link", "input", "wbr"}


class Page(HTMLParser):
    """A page taken apart: tags in order, text, ids and addresses; fails where tags do not close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.addresses, self.tags, self.words = [], [], [], [], []
        self.feed(text)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).replace(" <wbr> ", "").split())

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append((tag, values))
        self.ids += [values["id"]] if "id" in values else []
        self.addresses += [values[name] for name in ("src", "href", "xlink:href", "srcset", "data") if name in values]
        if tag == "wbr":
            self.words.append("<wbr>")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)


def page_of(folder, output, options=PLAIN):
    return Page(write_report(folder, output, options)[1][0].read_text())


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return tree.make_tree(tmp_path_factory.mktemp("tree") / "bench", pictures=True)


@pytest.fixture
def fresh(tmp_path):
    """A tree of its own, to be changed."""
    return tree.make_tree(tmp_path / "bench")


@pytest.fixture
def two_rows(fresh):
    """Of one dataset and one seed, to be changed."""
    return tree.keep(fresh, [tree.SHAPES], tree.ROWS[:2], [0])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """One dataset, three rows, one seed."""
    folder = tree.make_tree(tmp_path_factory.mktemp("tree") / "small")
    return tree.keep(folder, [tree.SHAPES], tree.ROWS[:3], [0])


@pytest.fixture(scope="module")
def report(bench, tmp_path_factory):
    """(analysis, {name: content})"""
    output = tmp_path_factory.mktemp("report")
    analysis, files = write_report(bench, output, ReportOptions(published=True, pictures=1, bootstrap=FEW))
    return analysis, {file.name: file.read_text() for file in files}


@pytest.fixture(scope="module")
def page(report):
    return Page(report[1]["report.html"])


def test_charts_take_their_ink_and_paper_from_the_page(report):
    charts = re.findall(r"<svg.*?</svg>", report[1]["report.html"], re.DOTALL)
    assert charts
    colours = {colour.lower() for chart in charts for colour in re.findall(r"#[0-9a-fA-F]{6}", chart)}
    assert not colours & {"#1a1a1a", "#5a5a5a", "#d9d9d9", "#ffffff", "#000000"}


def test_numbers_of_the_page_are_those_of_the_analysis(report, page):
    analysis, _ = report
    for result in analysis.results:
        for metric, found in result.summaries.items():
            unit = result.unit(metric)
            for item in found:
                assert f"{words.number(item.mean, unit)} {words.number(item.low, unit)} to" in page.text
        compared = result.comparisons["Dice"]
        for item in compared:
            assert f"{words.number(item.median, '1', True)} {words.number(item.low, '1', True)} to" in page.text
        for said in (words.shown(result.comparisons, "1"), words.not_shown(compared, "1"), words.settling(compared)):
            assert said in page.text


def test_means_of_the_page_are_those_of_the_tree(page):
    """The best row's from the tree's own values, in the table beside the first chart."""
    mean = np.mean([tree.dice(tree.SHAPES, tree.ROWS[2], fold, seed) for fold in tree.FOLDS for seed in tree.SEEDS])
    assert f"Swin-UMamba-dagger ImageNet {mean:.4f}" in page.text
    assert ("td", {"class": "best"}) in page.tags


def test_nothing_is_loaded(report, page):
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in page.addresses)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base", "form"}
    html = report[1]["report.html"]
    assert not re.findall(r"@import|url\((?!#)", html)
    # what is left of addresses are the names of XML namespaces, which nobody fetches
    assert {re.sub(r"\d.*", "", url) for url in re.findall(r"https?://[^\s\"'<]+", html)} <= {"http://www.w"}


def test_every_id_is_unique_and_every_link_leads_somewhere(page):
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= {*page.ids}


def test_charts_and_pictures_have_text_alternatives(page):
    charts = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(charts) == 6
    for attributes in charts:
        assert attributes["role"] == "img"
        assert {*attributes["aria-labelledby"].split()} <= {*page.ids}
    image, truth, *rows = (attributes["alt"] for tag, attributes in page.tags if tag == "img")
    assert "Image of case_" in image
    assert "Ground truth of case_" in truth
    assert [row.label in text for row, text in zip(tree.ROWS, rows, strict=True)] == [True] * 4


def test_names_are_escaped(report, page):
    html = report[1]["report.html"]
    assert "Dataset901_<wbr>Shapes" in html  # breaks after separators, and nowhere else
    assert not re.findall("<i>|<out of memory>", html)
    assert tree.HOSTILE in page.text  # once the parser has undone it
    assert ("i", {}) not in page.tags


def test_what_is_missing_is_said(page):
    assert_names(
        page.text,
        "Incomplete: 5 of 48 runs have no scores.",
        f"{tree.SHAPES}, {tree.HOSTILE}, fold 1, seed 2 : failed: train failed with exit code 1",
        tree.FAILURE,  # the end of its log
        f"{tree.SHAPES}, ResEnc L, fold 1, seed 2: not finished",
        f"{tree.ORGANS}, ResEnc L, fold 1, seed 0: never started",
        "Not ranked, because not scored on all 4 cases: ResEnc L.",
        f"From fewer runs than planned, but on all cases: ResEnc L (5 of 6 runs), {tree.HOSTILE} (5 of 6 runs).",
    )


def test_undefined_and_infinite_values_are_counted(page):
    # Dice of nnU-Net; HD95
    assert_names(page.text, "3 of 36 undefined", "1 of 36 infinite", f"1 of 4 not found by {tree.HOSTILE}")
    assert "\u221e" not in page.text


def test_the_checklist_is_filled_in(report):
    found = {item.question.split(":")[-1].strip(): item for item in report[0].checklist}
    for question, verdict, named in (
        ("pretraining", "caution", ["From ImageNet: Swin-UMamba-dagger", tree.HOSTILE]),
        ("plans, patch, batch, iterations, augmentation, split", "caution", ["Rows were planned differently"]),
        ("nnU-Net and its residual encoder", "in order", ["nnU-Net", "ResEnc L"]),
        ("the same network without the part that is claimed to matter", "caution", ["nnUNetTrainerSwinUMambaDNoScan"]),
        ("Length of the trainings", "caution", ["240 iterations", "0.096 %", "250,000"]),
        ("can they separate the methods?", "in order", [tree.SHAPES, tree.ORGANS, "ratio"]),
        ("how many?", "caution", ["2 datasets"]),
        ("seeds and folds", "in order", ["3 seeds, 2 folds (0, 1)", "Of nnU-Net, ResEnc L a seed", tree.HOSTILE]),
        ("Interrupted trainings", "in order", []),
        ("the same cases for every row, nothing left out", "problem", ["5 of 48 runs", "infinite"]),
        ("enough cases, corrected for many tests", "problem", ["In 9 of 18 comparisons"]),
        ("Times and memory measured alike", "in order", ["one machine"]),
    ):
        assert found[question].verdict == verdict, question
        assert_names(found[question].answer, *named)


ACTING = "=cmd|1 \x1b[31m\x07\x00\u202e"


def test_what_acts_on_a_screen_or_a_spreadsheet_reaches_neither(fresh, capsys):
    """From labels, keys, logs, hosts and class names into page, LaTeX, CSV and terminal."""
    folder = tree.keep(fresh, [tree.SHAPES], [tree.ROWS[0], tree.ROWS[3]], folds=[1])

    def act(content):
        for row in (*content["rows"], *content["config"]["trainers"]):
            row["label"] = ACTING if row["label"] == tree.HOSTILE else row["label"]
        content["hardware"] = {ACTING: ACTING}

    edit(folder / "benchmark.json", act)
    for file in folder.glob("cells/*/*/*/*/cell.json"):
        error = {"step": "train", "log_tail": f"{ACTING}\nnext line", "reason": ACTING}
        edit(file, lambda record, error=error: record.update(host=ACTING, label=ACTING, error=error))
    for file in folder.glob("cells/*/*/*/*/evaluation/metrics.csv"):
        file.write_text(file.read_text().replace(",disc,", ",'=disc,"))  # as evaluate writes a class called =disc
    assert cli.main(["benchmark", "report", str(folder), "--pictures", "0", "--resamples", "5"]) == 0
    assert cli.main(["benchmark", "status", str(folder)]) == 1
    said = capsys.readouterr()
    texts = {path.name: path.read_text() for path in (folder / "report").iterdir()}
    for name, text in {"stdout": said.out, "stderr": said.err, **texts}.items():
        assert not set(text) & set("\x1b\x07\x00\u202e"), name
    assert "\\x1b[31m\\x07\\x00\\u202e" in texts["report.html"]
    assert "next line" in texts["report.html"]
    assert "\\x1b" in said.out
    assert ">=disc<" in texts["report.html"]  # read back as it was
    sheets = [csv.reader(io.StringIO(text)) for name, text in texts.items() if name.endswith(".csv")]
    assert len(sheets) == 6
    cells = {cell for sheet in sheets for line in sheet for cell in line}
    assert "'=disc" in cells
    assert not [cell for cell in cells if re.match(r"[=+@]|-(?![\d.]|inf|nan|$)", cell)]


def test_an_observer_is_compared_and_asked_for_nothing_that_trainings_have(small, tmp_path):
    """Beside three trainers, with the scores that nnU-Net's network has with seed 0."""
    before = analyse(read_benchmark(small), PLAIN)
    folder = shutil.copytree(small, tmp_path / "bench")
    runs = [f"{tree.SHAPES}/second/fold_{fold}/seed_0" for fold in tree.FOLDS]

    def add(content):
        content["config"]["observers"] = {"second": "FOLDER"}
        content["cells"] += runs

    edit(folder / "benchmark.json", add)
    for run in runs:
        theirs = folder / "cells" / run.replace("second", tree.ROWS[0].key)
        shutil.copytree(theirs / "evaluation", folder / "cells" / run / "evaluation")
        record = {"state": "done", "host": "another", "commands": [["steps", "--", "swin-umamba", "evaluate"]]}
        dump(folder / "cells" / run / "cell.json", record)
    page = page_of(folder, tmp_path / "report")
    analysis = analyse(read_benchmark(folder), PLAIN)
    (result,), (usual,) = analysis.results, before.results
    *trainers, human = result.summaries["Dice"]
    assert (human.label, human.done, human.n_seeds, human.mean) == ("second (human)", 2, 0, trainers[0].mean)
    assert math.isnan(human.rank)
    assert [(item.mean, item.rank) for item in trainers] == [(s.mean, s.rank) for s in usual.summaries["Dice"]]
    *compared, theirs = result.comparisons["Dice"]
    assert (theirs.row, theirs.n_pairs, theirs.n_tied, theirs.n_seeds) == (human.label, 16, 16, 0)
    assert (result.costs, result.suitability) == (usual.costs, usual.suitability)
    assert str(compared) == str(usual.comparisons["Dice"])  # their p is corrected as before
    assert analysis.checklist == before.checklist
    assert_names(page.text, "3 trainers", "1 human observer", "second (human)", "swin-umamba evaluate")
    assert "swin-umamba evaluate # seed" not in page.text


def test_commands_versions_hardware_and_hashes_are_there(page):
    command = "nnUNetv2_train Dataset901_Shapes 2d 0 -tr nnUNetTrainer_10epochs"
    assert_names(page.text, f"python -m seeded -- {command}", "2.15.0", "Some CPU", "a" * 64, "d" * 16)
    assert page.text.count(f"{command} # seed") == 6  # of both plans, a line each
    replay = "SWIN_UMAMBA_SEED=2 nnUNetv2_train Dataset901_Shapes 2d 0 -tr nnUNetTrainerSwinUMambaD_10epochs"
    assert page.text.count(f"{replay} ") == 1


def test_published_rows_are_marked_and_stand_beside_the_same_dataset(report, page):
    assert page.text.count("Published elsewhere: ") == page.text.count(OTHER_PROTOCOL) == len(PUBLISHED)
    html = report[1]["report.html"]
    section = html[html.index('id="dataset-2"') : html.index('id="published"')]
    assert_names(section, "Published elsewhere: AbdomenMR", OTHER_PROTOCOL)
    assert section.count("0.7760") == html.count("0.7760") == 1


def test_csv_holds_the_same_numbers(report):
    analysis, files = report
    read = {name: pd.read_csv(io.StringIO(text)) for name, text in files.items() if name.endswith(".csv")}
    lines = read["results.csv"].set_index(["dataset", "label", "metric"])[["mean", "n_undefined"]].T.to_dict("list")
    assert lines == {
        (result.dataset, item.label, metric): pytest.approx([item.mean, item.n_undefined], rel=0, nan_ok=True)
        for result in analysis.results
        for metric, found in result.summaries.items()
        for item in found
    }
    runs, cases = read["runs.csv"], read["cases.csv"]
    assert set(runs["state"]) == {"done", "failed", "running", "waiting"}
    assert math.inf in set(cases.loc[cases["metric"] == "HD95", "value"])
    # the seeds' ticks of the first chart: one fold is missing of the third seed of the second row
    first = runs[(runs["dataset"] == tree.SHAPES) & (runs["label"] == "nnU-Net")].groupby("seed")["mean Dice"].mean()
    assert first.to_dict() == pytest.approx(analysis.results[0].seeds["nnU-Net"])


def test_latex_is_well_formed(report):
    text = report[1]["tables.tex"]
    nested = r"\\begin\{table\}(?:(?!\\begin\{table).)*\\begin\{tabular\}.*?\\end\{tabular\}\s*\\end\{table\}"
    assert len(re.findall(nested, text, re.DOTALL)) == text.count(r"\begin") / 2 == text.count(r"\end") / 2
    bare = re.sub(r"\\[\\{}$&#%_]", "", re.sub("^%.*", "", text, flags=re.MULTILINE))
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert not set(bare) & set("#%_^~<>|")
    assert bare.isascii()
    for table in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        lines = [line for line in table[1].splitlines() if line.endswith(r"\\")]
        assert all(len(re.findall(r"(?<!\\)&", line)) == len(table[0]) - 1 for line in lines)
        assert len(lines) > 1
    assert len(set(re.findall(r"\\label\{(.*?)\}", text))) == text.count(r"\label")


def test_latex_escapes():
    hostile = r"\textless{}i\textgreater{}scratch\textless{}/i\textgreater{} \& 50 \%\_\$x\$"
    assert build.escape(tree.HOSTILE) == hostile
    assert build.escape("a\\b{c}^~#") == r"a\textbackslash{}b\{c\}\textasciicircum{}\textasciitilde{}\#"


def test_the_same_tree_gives_the_same_report(small, tmp_path, monkeypatch):
    monkeypatch.setattr("swin_umamba_nnunet.benchmark.report.build.now", lambda: "today")
    pages = [write_report(small, tmp_path / name, PLAIN)[1][0].read_text() for name in "ab"]
    assert pages[0] == pages[1]


def test_the_command(small, tmp_path, capsys):
    options = ["--pictures", "1", "--resamples", "5", "--metrics", "NSD", "--baseline", "ResEnc L"]
    assert cli.main(["benchmark", "report", str(small), "-o", str(tmp_path / "out"), *options]) == 0
    assert "6 of 6 runs" in capsys.readouterr().out
    text = Page((tmp_path / "out" / "report.html").read_text()).text
    assert_names(text, "ResEnc L (asked for)", "NSD minus that of ResEnc L", "No picture: ")  # its files are not there
    assert "Dice minus" not in text
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--baseline", "nobody"], ["baseline", "'nobody'", "choose one of nnU-Net"]),
        (["--metrics", "Dise"], ["metric", "'Dise'", "metrics.csv", "Dice, NSD, HD95"]),
        (["--pictures", "-1"], ["--pictures -1", "0 or more"]),
    ],
)
def test_bad_options_are_one_sentence(bench, tmp_path, capsys, options, named):
    assert cli.main(["benchmark", "report", str(bench), "-o", str(tmp_path / "out"), *options]) == 2
    assert_names(capsys.readouterr().err, *named)
    assert not (tmp_path / "out").exists()


def test_a_benchmark_that_has_not_begun(bench, tmp_path):
    (tmp_path / "new").mkdir()
    shutil.copy(bench / "benchmark.json", tmp_path / "new")
    with raises(BenchmarkError, tmp_path / "new", "no finished run", "swin-umamba benchmark status"):
        write_report(tmp_path / "new", tmp_path / "out")


def test_damaged_scores_are_named(fresh, tmp_path):
    file = next(fresh.glob("cells/*/*/fold_0/seed_0/evaluation/metrics.csv"))
    file.write_text("case,class\n")
    with raises(BenchmarkError, file, "'case', 'class'", "expected case, class"):
        write_report(fresh, tmp_path / "out")


def test_a_dataset_without_any_score_and_a_baseline_without(fresh, tmp_path):
    """One dataset never began, and the baseline has nothing on the other."""
    folder = tree.keep(fresh, rows=tree.ROWS[:2], seeds=[0])
    shutil.rmtree(folder / "cells" / tree.ORGANS)
    shutil.rmtree(folder / "cells" / tree.SHAPES / tree.ROWS[0].key)
    text = page_of(folder, tmp_path / "out", ReportOptions(pictures=1, bootstrap=FEW)).text
    assert text.count("nnU-Net, the baseline, has no finished run here.") == 1
    assert "nnU-Net baseline no finished run 0/2" in text
    assert "No run on it has scores yet." in text


def test_one_seed_one_fold_one_row(fresh, tmp_path):
    """The smallest benchmark, with as little recorded as may be: nothing to compare, and the page says so.  The other
    runs are strays."""
    folder = tree.keep(fresh, [tree.SHAPES], tree.ROWS[:1], [0], [0])
    edit(folder / "benchmark.json", lambda content: [content.pop(key) for key in ("findings", "rows", "hardware")])
    edit(folder / "cells" / tree.names()[0] / "cell.json", lambda record: [record.pop(key) for key in [*record][1:]])
    text = page_of(folder, tmp_path / "out").text
    assert_names(text, "no other row than nnU-Net has scores here", "The folder also holds 44 runs")
    assert_names(text, "This benchmark recorded no findings", "separate methods is not measured", "1 seed, 1 fold (0)")
    assert "Published elsewhere" not in text


def test_folds_scored_on_different_cases_are_kept_apart(two_rows):
    for file in two_rows.glob(f"cells/{tree.SHAPES}/*/fold_1/*/cell.json"):
        edit(file, lambda record: record["inputs"].update(scored_on="test set"))
    analysis = analyse(read_benchmark(two_rows), PLAIN)
    assert [len(result.cases) for result in analysis.results] == [8, 8]
    assert analysis.results[1].title == f"{tree.SHAPES} (test set)"


def test_a_run_that_never_began_belongs_to_the_cases_the_benchmark_scores_on(two_rows):
    edit(two_rows / "benchmark.json", lambda content: content["config"].update(test=True))
    files = [run.folder / "cell.json" for run in read_benchmark(two_rows).runs]
    for file in files[:2]:
        edit(file, lambda record: record["inputs"].update(scored_on="test set"))
    for file in files[2:]:
        file.unlink()
    analysis = analyse(read_benchmark(two_rows), PLAIN)
    assert [len(result.runs) for result in analysis.results] == [4]
    (repetitions,) = (item for item in analysis.checklist if item.question.startswith("Repetitions"))
    assert "1 seed, 1 fold (0)" in repetitions.answer  # of what has scores
