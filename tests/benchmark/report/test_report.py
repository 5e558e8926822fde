"""The files of a report made from a tree: what they say, what they do not load, and that they are well-formed."""

import csv
import io
import json
import math
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from swin_umamba_nnunet import cli
from swin_umamba_nnunet.benchmark.errors import MatrixError
from swin_umamba_nnunet.benchmark.report import ReportOptions, latex, words, write_report
from swin_umamba_nnunet.benchmark.report.analysis import analyse
from swin_umamba_nnunet.benchmark.report.collect import read_benchmark
from swin_umamba_nnunet.benchmark.report.published import OTHER_PROTOCOL, PUBLISHED
from swin_umamba_nnunet.evaluation.statistics import Bootstrap
from tests.benchmark.report import tree

FEW = Bootstrap(100)
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """A page taken apart: tags in order, text, ids and addresses; fails where tags do not close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.addresses, self.tags, self.words = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append((tag, values))
        self.ids += [values["id"]] if "id" in values else []
        self.addresses += [values[name] for name in ("src", "href", "xlink:href", "srcset", "data") if name in values]
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

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return tree.make_tree(tmp_path_factory.mktemp("tree") / "bench", pictures=True)


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


def test_numbers_of_the_page_are_those_of_the_analysis(report, page):
    analysis, _ = report
    for result in analysis.results:
        for metric, found in result.summaries.items():
            unit = result.arena.unit(metric)
            for item in found:
                assert f"{words.number(item.mean, unit)} {words.number(item.low, unit)} to" in page.text
        for item in result.comparisons["Dice"]:
            assert words.sentence(item, "1") in page.text
            assert f"{words.number(item.median, '1', True)} {words.number(item.low, '1', True)} to" in page.text


def test_means_of_the_page_are_those_of_the_tree(page):
    """The first dataset's means from the tree's own values, in the table of Dice."""
    means = [np.mean([tree.dice(tree.SHAPES, tree.ROWS[i], fold, seed) for fold in tree.FOLDS for seed in tree.SEEDS])
             for i in (0, 2)]  # fmt: skip
    assert f"nnU-Net baseline 6/6 {means[0]:.4f}" in page.text
    assert f"Swin-UMamba-dagger ImageNet 6/6 {means[1]:.4f}" in page.text


def test_nothing_is_loaded(report, page):
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base", "form"}
    html = report[1]["report.html"]
    assert "@import" not in html
    assert set(re.findall(r"url\((?!#)([^)]*)\)", html)) == set()
    # what is left of addresses are the names of XML namespaces, which nobody fetches
    assert {re.sub(r"\d.*", "", url) for url in re.findall(r"https?://[^\s\"'<]+", html)} <= {"http://www.w"}


def test_every_id_is_unique_and_every_link_leads_somewhere(page):
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= {*page.ids}


def test_charts_and_pictures_have_text_alternatives(page):
    charts = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(charts) == 10
    for attributes in charts:
        assert attributes["role"] == "img"
        assert {*attributes["aria-labelledby"].split()} <= {*page.ids}
    pictures = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 1
    assert all(row.label in pictures[0] for row in tree.ROWS)


def test_names_are_escaped(report, page):
    html = report[1]["report.html"]
    assert "<i>" not in html
    assert "<out of memory>" not in html
    assert tree.HOSTILE in page.text  # once the parser has undone it
    assert ("i", {}) not in page.tags


def test_what_is_missing_is_said(page):
    assert "Incomplete: 5 of 48 cells have no scores." in page.text
    assert f"{tree.SHAPES}, {tree.HOSTILE}, fold 1, seed 2 : failed: train failed with exit code 1" in page.text
    assert tree.FAILURE in page.text  # the end of its log
    assert f"{tree.SHAPES}, ResEnc L, fold 1, seed 2: not finished" in page.text
    assert f"{tree.ORGANS}, ResEnc L, fold 1, seed 0: never started" in page.text
    assert "Not ranked, because not scored on all 4 cases: ResEnc L." in page.text
    assert "5 of 48 cells have no scores" in page.text


def test_undefined_and_infinite_values_are_counted(page):
    assert "3 of 36" in page.text  # undefined Dice of nnU-Net
    assert "1 of 36" in page.text  # infinite HD95
    assert "1 infinite value cannot be drawn." not in page.text  # charts are of Dice


def test_too_few_cases_are_said(page):
    assert "So few cases cannot show anything by this test" in page.text
    assert "problem In 8 of 18 comparisons there are too few cases" not in page.text  # NSD, HD95 and Dice: 9
    assert "In 9 of 18 comparisons there are too few cases to show anything." in page.text


def test_the_checklist_is_filled_in(report):
    verdicts = {item.question: item for item in report[0].checklist}
    assert verdicts["Confounding booster: pretraining"].verdict == "caution"
    assert "Rows were planned differently" in next(
        item.answer for question, item in verdicts.items() if question.startswith("Confounding boosters")
    )
    assert verdicts["Baselines: nnU-Net and its residual encoder"].verdict == "in order"
    assert verdicts["Length of the trainings"].answer.startswith("240 iterations per training. At most 0.096 % of")
    assert verdicts["Repetitions: seeds and folds"].verdict == "in order"
    assert verdicts["Datasets: how many?"].verdict == "caution"


ACTING = "=cmd|1 \x1b[31m\x07\x00\u202e"


def test_what_acts_on_a_screen_or_a_spreadsheet_reaches_neither(tmp_path, capsys):
    """From labels, keys, logs, hosts and class names into page, LaTeX, CSV and terminal."""
    folder = tree.keep(tree.make_tree(tmp_path / "bench"), [tree.SHAPES], [tree.ROWS[0], tree.ROWS[3]], folds=[1])
    file = folder / "benchmark.json"
    content = json.loads(file.read_text())
    for row in (*content["rows"], *content["config"]["trainers"]):
        row["label"] = ACTING if row["label"] == tree.HOSTILE else row["label"]
    content["hardware"] = {ACTING: ACTING}
    file.write_text(json.dumps(content))
    for file in folder.glob("cells/*/*/*/*/cell.json"):
        record = json.loads(file.read_text()) | {"host": ACTING, "label": ACTING}
        if record["state"] == "failed":
            record["error"] |= {"log_tail": f"{ACTING}\nnext line", "reason": ACTING}
        file.write_text(json.dumps(record))
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
    for name in ("results", "classes", "comparisons", "costs", "cases", "cells"):
        for line in csv.DictReader(io.StringIO(texts[f"{name}.csv"])):
            labels = [line[key] for key in ("label", "row", "class", "host") if line.get(key)]
            assert not [label for label in labels if label[0] in "=+-@"]
    assert any("'=disc" in line for line in texts["classes.csv"].splitlines())


def checklist_of(folder, **changes):
    """Question -> item, after a change of what benchmark.json has recorded about rows, given by their labels."""
    content = json.loads((folder / "benchmark.json").read_text())
    for row in content["rows"]:
        for name, value in changes.get(row["label"].replace("-", "_").replace(" ", "_"), {}).items():
            row[name] = value
    (folder / "benchmark.json").write_text(json.dumps(content))
    analysis = analyse(read_benchmark(folder), (), "", FEW)
    return {item.question.split(":")[0]: item for item in analysis.checklist}


def test_the_checklist_goes_by_what_trainers_derive_from_and_not_by_names(tmp_path):
    folder = tree.make_tree(tmp_path / "bench")
    base = "swin_umamba_nnunet.trainers.generated.nnUNetTrainerSwinUMambaD"
    found = checklist_of(
        folder,
        nnU_Net={"stock_network": False, "ancestors": ["mine.Mine", f"{base}NoScan_10epochs", base]},
        Swin_UMamba_dagger={"ancestors": ["mine.Other", f"{base}_10epochs"]},
    )
    # what is called nnUNetTrainer_10epochs is a subclass of the control here
    assert found["Baselines"].answer.startswith("ResEnc L is a row; nnU-Net")
    answer = found["Controls"].answer  # the one is its user's, and the other is not
    assert answer.index("May differ in more") < answer.index("nnU-Net for Swin-UMamba-dagger")
    assert "Absent: nnUNetTrainerSwinUMambaDNoScanScratch_10epochs for" in found["Controls"].answer
    assert found["Confounding booster"].verdict == "caution"  # from scratch is there, too
    names = {"ancestors": ["theirs.nnUNetTrainerSwinUMambaD_10epochs"]}  # another's trainer of that name
    assert "for Swin-UMamba-dagger" not in checklist_of(folder, Swin_UMamba_dagger=names)["Controls"].answer


def test_what_an_older_benchmark_did_not_record_is_not_known(tmp_path):
    found = checklist_of(tree.make_tree(tmp_path / "bench"), ResEnc_L={"ancestors": None})
    for question in ("Baselines", "Controls"):
        assert found[question].verdict == "not known"
        assert "run it once more" in found[question].answer


def test_commands_versions_hardware_and_hashes_are_there(page):
    for text in ("-m seeded -- nnUNetv2_train Dataset901_Shapes 2d 0", "2.15.0", "Some CPU", "a" * 64, "d" * 16):
        assert text in page.text


def test_published_rows_are_marked_and_optional(small, tmp_path, page):
    assert page.text.count("Published elsewhere: ") == len(PUBLISHED)
    assert page.text.count(OTHER_PROTOCOL) == len(PUBLISHED)
    _, files = write_report(small, tmp_path, ReportOptions(pictures=0, bootstrap=Bootstrap(1)))
    assert "Published elsewhere" not in files[0].read_text()


def test_published_rows_stand_beside_the_same_dataset(tmp_path):
    folder = tree.keep(tree.make_tree(tmp_path / "bench"), [tree.SHAPES], tree.ROWS[:1], [0])
    renamed = json.loads((folder / "benchmark.json").read_text().replace(tree.SHAPES, "Dataset702_AbdomenMR"))
    (folder / "benchmark.json").write_text(json.dumps(renamed))
    (folder / "cells" / tree.SHAPES).rename(folder / "cells" / "Dataset702_AbdomenMR")
    _, files = write_report(folder, tmp_path / "out", ReportOptions(published=True, pictures=0, bootstrap=FEW))
    text = files[0].read_text()
    section = text[text.index('id="dataset-1"') : text.index('id="published"')]
    assert "Published elsewhere: AbdomenMR" in section
    assert OTHER_PROTOCOL in section
    assert section.count("0.7760") == text.count("0.7760") == 1


def test_csv_holds_the_same_numbers(report):
    analysis, files = report
    results = pd.read_csv(io.StringIO(files["results.csv"])).set_index(["dataset", "label", "metric"])
    for result in analysis.results:
        for metric, found in result.summaries.items():
            for item in found:
                line = results.loc[(result.arena.dataset, item.label, metric)]
                assert line["mean"] == item.mean
                assert line["n_undefined"] == item.n_undefined
    comparisons = pd.read_csv(io.StringIO(files["comparisons.csv"]))
    assert len(comparisons) == 18
    assert set(pd.read_csv(io.StringIO(files["cells.csv"]))["state"]) == {"done", "failed", "running", "waiting"}
    cases = pd.read_csv(io.StringIO(files["cases.csv"]))
    assert math.inf in set(cases.loc[cases["metric"] == "HD95", "value"])


def test_latex_is_well_formed(report):
    text = report[1]["tables.tex"]
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert stack == []
    bare = re.sub(r"\\[\\{}$&#%_]", "", "\n".join(line for line in text.splitlines() if not line.startswith("%")))
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
    assert latex.escape(tree.HOSTILE) == r"\textless{}i\textgreater{}scratch\textless{}/i\textgreater{} \& 50 \%\_\$x\$"
    assert latex.escape("a\\b{c}^~#") == r"a\textbackslash{}b\{c\}\textasciicircum{}\textasciitilde{}\#"


def test_the_same_tree_gives_the_same_report(small, tmp_path, monkeypatch):
    monkeypatch.setattr("swin_umamba_nnunet.benchmark.report.page.now", lambda: "today")
    options = ReportOptions(pictures=0, bootstrap=Bootstrap(5))
    pages = [write_report(small, tmp_path / name, options)[1][0].read_text() for name in "ab"]
    assert pages[0] == pages[1]


def test_the_command(small, tmp_path, capsys):
    options = ["--pictures", "0", "--resamples", "5", "--metrics", "NSD", "--baseline", "ResEnc L"]
    assert cli.main(["benchmark", "report", str(small), "-o", str(tmp_path / "out"), *options]) == 0
    printed = capsys.readouterr().out
    assert "6 of 6 cells" in printed
    text = Page((tmp_path / "out" / "report.html").read_text()).text
    assert "ResEnc L (asked for)" in text
    assert "NSD (higher is better)" in text
    assert "Dice (higher is better)" not in text
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--baseline", "nobody"], "the baseline 'nobody' is none of the rows; choose one of nnU-Net"),
        (["--metrics", "Dise"], "no cell has the metric 'Dise'; its metrics.csv files have Dice, NSD, HD95"),
        (["--pictures", "-1"], "--pictures -1: expected 0 or more"),
    ],
)
def test_bad_options_are_one_sentence(bench, tmp_path, capsys, options, said):
    assert cli.main(["benchmark", "report", str(bench), "-o", str(tmp_path / "out"), *options]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_without_benchmark(tmp_path, capsys):
    assert cli.main(["benchmark", "report", str(tmp_path)]) == 2
    assert "no benchmark.json" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_benchmark_that_has_not_begun(bench, tmp_path):
    (tmp_path / "new").mkdir()
    shutil.copy(bench / "benchmark.json", tmp_path / "new")
    with pytest.raises(MatrixError, match="has no finished cell yet"):
        write_report(tmp_path / "new", tmp_path / "out")


def test_damaged_scores_are_named(tmp_path):
    folder = tree.make_tree(tmp_path / "bench")
    file = next(folder.glob("cells/*/*/fold_0/seed_0/evaluation/metrics.csv"))
    file.write_text("case,class\n")
    with pytest.raises(MatrixError, match=r"metrics\.csv has the columns \['case', 'class'\]; expected case, class"):
        write_report(folder, tmp_path / "out")


def test_a_dataset_without_any_score_and_a_baseline_without(tmp_path):
    """One dataset never began, and the baseline has nothing on the other."""
    folder = tree.keep(tree.make_tree(tmp_path / "bench"), rows=tree.ROWS[:2], seeds=[0])
    shutil.rmtree(folder / "cells" / tree.ORGANS)
    shutil.rmtree(folder / "cells" / tree.SHAPES / tree.ROWS[0].key)
    _, files = write_report(folder, tmp_path / "out", ReportOptions(pictures=1, bootstrap=FEW))
    text = Page(files[0].read_text()).text
    assert text.count("nnU-Net, the baseline, has no finished cell here.") >= 2
    assert "No finished cell: nnU-Net." in text


def test_one_seed_one_fold_one_row(tmp_path):
    """The smallest benchmark: nothing to compare, and the page says so.  The other cells are strays."""
    folder = tree.keep(tree.make_tree(tmp_path / "bench"), [tree.SHAPES], tree.ROWS[:1], [0], [0])
    _, files = write_report(folder, tmp_path / "out", ReportOptions(bootstrap=FEW))
    text = Page(files[0].read_text()).text
    assert "no other row than nnU-Net has scores here" in text
    assert "Whether this dataset can separate methods is not measured" in text
    assert "The folder also holds 44 cells that its configuration no longer names" in text


def test_folds_scored_on_different_cases_are_kept_apart(tmp_path):
    folder = tree.keep(tree.make_tree(tmp_path / "bench"), [tree.SHAPES], tree.ROWS[:2], [0])
    for file in folder.glob(f"cells/{tree.SHAPES}/*/fold_1/*/cell.json"):
        record = json.loads(file.read_text())
        record["inputs"]["scored_on"] = "test set"
        file.write_text(json.dumps(record))
    analysis = analyse(read_benchmark(folder), (), "", FEW)
    assert [len(result.arena.cases) for result in analysis.results] == [8, 8]
    assert analysis.results[1].arena.title == f"{tree.SHAPES} (test set)"


def test_a_cell_that_never_began_belongs_to_the_cases_the_benchmark_scores_on(tmp_path):
    folder = tree.keep(tree.make_tree(tmp_path / "bench"), [tree.SHAPES], tree.ROWS[:2], [0])
    content = json.loads((folder / "benchmark.json").read_text())
    content["config"]["test"] = True
    (folder / "benchmark.json").write_text(json.dumps(content))
    first, *others = (folder / "cells" / name / "cell.json" for name in content["cells"])
    first.unlink()
    for file in others:
        record = json.loads(file.read_text())
        record["inputs"]["scored_on"] = "test set"
        file.write_text(json.dumps(record))
    (result,) = analyse(read_benchmark(folder), (), "", FEW).results
    assert len(result.arena.cells) == len(content["cells"]) == 4
