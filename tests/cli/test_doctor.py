"""`swin-umamba doctor`: what it says about healthy and about broken installations."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from swin_umamba_nnunet import _autoregister, ops, settings, trainers
from swin_umamba_nnunet.catalogue import TRAINERS
from swin_umamba_nnunet.cli import doctor as verb
from swin_umamba_nnunet.ops import _selftest
from swin_umamba_nnunet.pretrained import cache_folder, locate, registry
from tests.messages import assert_names
from tests.pretrained.conftest import save, saved, secluded, state_dict  # noqa: F401  (fixtures)

NAMES = [record.name for record in TRAINERS]
OURS = str(Path(trainers.__file__).parent)
TILL_THEN = ("swin-umamba doctor --json", "SWIN_UMAMBA_BACKEND")  # what to do about a backend that computes wrong


@pytest.fixture
def finder(monkeypatch):
    """nnU-Net's finder, answered for: `places` are what it finds."""
    found = SimpleNamespace(places=dict.fromkeys(NAMES, OURS))

    def run(command, **kwargs):
        return subprocess.CompletedProcess(command, 0, f"Searching in: /somewhere\n{json.dumps(found.places)}\n", "")

    for name in (_autoregister.SWITCH, "SWIN_UMAMBA_BACKEND", *settings.FOLDERS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(verb.subprocess, "run", run)
    return found


@pytest.fixture
def quick(finder, monkeypatch):
    """An installation that is sound, with all that takes time answered for.

    Of the self-test by `errors`: backend or device -> error, or an exception.
    """
    finder.errors = {}

    def worst_error(backend, device):
        found = finder.errors.get(device, finder.errors.get(backend, 1e-7))
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(_selftest, "worst_error", worst_error)
    monkeypatch.setattr(_selftest, "giga_state_steps", lambda backend, device: 3.25)
    return finder


@pytest.fixture
def doctor(finder, told):
    """A function (*words, code=0) -> what the verb printed."""
    return lambda *words, code=0: told(code, "doctor", *words).out


@pytest.fixture
def advice(quick, doctor):
    """A function -> the one thing that is to be put right."""

    def advice():
        (line,) = doctor(code=1).split("To put right:\n")[1].split("And before")[0].splitlines()
        return line

    return advice


def test_healthy(finder, doctor):
    """With the self-test as it is: values and gradients of every backend that can run here."""
    text = doctor()
    assert "nnunetv2" in text
    assert "on cpu: numba" in text
    for backend in ("numba", "reference"):
        (line,) = [line for line in text.splitlines() if line.strip().startswith(backend) and "available" in line]
        assert re.search(r"right, error \S+, \S+ G state-steps/s", line)
    assert f"nnU-Net finds {len(NAMES)} of {len(NAMES)}" in text
    assert text.count("The installation works") == 1


def test_each_check_is_announced_before_it_begins(quick, capsys, told, monkeypatch):
    said = []

    def slow(found):
        said.append(capsys.readouterr())
        found.lines.append("found this")

    monkeypatch.setattr(verb, "CHECKS", {slow: "what takes long"})
    assert "found this" in told(0, "doctor").out
    report = json.loads(told(0, "doctor", "--json").out)
    assert report == {"slow": {}, "missing": [], "problems": []}
    assert (said[0].out, said[1].err) == ("what takes long\n",) * 2


def test_a_check_that_fails_is_a_finding_and_hides_no_other(quick, monkeypatch, doctor):
    def broken(found):
        raise OSError("libcudart.so.12: cannot open shared object file\nand more")

    monkeypatch.setattr(verb, "CHECKS", {broken: "a library"} | verb.CHECKS)
    text = doctor(code=1)
    assert "on cpu: numba" in text
    assert_names(text.split("To put right:")[1], "broken", "libcudart.so.12: cannot open")


# ------------------------------------------------------------------------------------------------ ready for a training


@pytest.fixture
def needs(quick, doctor):
    """A function -> what a training still needs, a sentence each."""
    return lambda: doctor().split("The installation works. Before a training here:\n")[1].splitlines()


def test_what_a_training_still_needs_is_named_and_no_fault_of_the_installation(monkeypatch, doctor, needs):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = "\n".join(needs())
    assert_names(found, *settings.FOLDERS, "-device cpu", "vmamba_tiny_v0", "Scratch")
    assert "vmamba_base_v2" not in found  # no trainer starts from it
    report = json.loads(doctor("--json"))
    assert "\n".join(report["missing"]).count("nnUNet_") >= 3


def test_ready(quick, published, gpus, monkeypatch, tmp_path, doctor):
    published(folder=cache_folder())
    for name in settings.FOLDERS:
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(verb, "TRAINERS", [record for record in TRAINERS if record.weights == "vmamba_tiny_v0"])
    assert doctor().endswith("The installation works, and a training can start.\n")


def test_folders_that_cannot_serve(monkeypatch, tmp_path, needs):
    (tmp_path / "file").touch()
    raw, results = tmp_path / "absent", tmp_path / "file" / "below"
    monkeypatch.setenv("nnUNet_raw", str(raw))
    monkeypatch.setenv("nnUNet_results", str(results))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "absent" / "but can be made"))
    first, second = (line for line in needs() if "nnUNet_" in line.split()[1])
    assert_names(first, "nnUNet_raw", raw)
    assert_names(second, "nnUNet_results", results, "written")


def test_the_report_for_a_bug_is_json_and_keeps_the_account_to_itself(quick, monkeypatch, tmp_path, doctor):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", str(tmp_path)))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_results", f"{tmp_path}_other")
    report = json.loads(doctor("--json"))
    assert report["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    cpu, environment = report["backends"]["cpu"], report["environment"]
    test = cpu["self_test"]["numba"]
    assert (cpu["runs"], test["ok"], test["relative_l2_error"], test["giga_state_steps"]) == ("numba", True, 1e-7, 3.25)
    assert report["trainers"]["found"] == dict.fromkeys(NAMES, OURS)
    assert (environment["nnUNet_raw"], environment["nnUNet_results"]) == ("~/raw", f"{tmp_path}_other")
    assert set(report["weights"]["files"]) == {record.name for record in registry.RECORDS}
    assert report["problems"] == []


# ---------------------------------------------------------------------------------------------------------- trainers


@pytest.mark.parametrize(
    ("variable", "value", "facts"),
    [
        (_autoregister.VARIABLE, "/a", (f"export nnUNet_extTrainer=/a{os.pathsep}{_autoregister.FOLDER}",)),
        (_autoregister.SWITCH, "1", (_autoregister.SWITCH, "unset")),
        (_autoregister.SWITCH, "0", ("export nnUNet_extTrainer=",)),  # a switch set to 0 is not blamed
    ],
)
def test_why_no_trainer_is_found(variable, value, facts, quick, monkeypatch, advice):
    monkeypatch.setenv(variable, value)
    quick.places = dict.fromkeys(NAMES)
    assert_names(advice(), *facts)


@pytest.fixture
def found_beside(tmp_path, monkeypatch, warm_python):
    """A function (text) -> what nnU-Net's own finder leads to, with `my_trainers.py` of this text in another folder."""

    def found(text):
        monkeypatch.setattr("sys.executable", warm_python)
        (tmp_path / "my_trainers.py").write_text(text)
        monkeypatch.setenv(_autoregister.VARIABLE, os.pathsep.join([str(tmp_path), _autoregister.FOLDER]))
        verb.trainers(section := verb.Section())
        return section

    return found


def test_what_the_real_finder_answers(found_beside, monkeypatch):
    """One trainer that another folder has first, one of ours, and one that nobody has, in one process."""
    nobodys = dataclasses.replace(TRAINERS[0], name="nnUNetTrainerNobodys")
    monkeypatch.setattr(verb, "TRAINERS", (*TRAINERS[:2], nobodys))
    section = found_beside(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n\n\n"
        f"class {NAMES[0]}(nnUNetTrainer):\n    pass\n"
    )
    assert section.data["found"] == {NAMES[0]: "a module named my_trainers", NAMES[1]: OURS, nobodys.name: None}
    missing, elsewhere = section.problems
    assert_names(missing, _autoregister.VARIABLE, f"not {nobodys.name};", _autoregister.FOLDER)
    assert_names(elsewhere, _autoregister.VARIABLE, NAMES[0], "my_trainers")


@pytest.mark.parametrize("fault", ["class A(:\n", "import nothing_of_that_name\n", "raise SystemExit\n"])
def test_a_trainer_file_that_cannot_be_imported_is_named(fault, found_beside, tmp_path):
    """nnU-Net imports every file of the folder, so its commands fail as this search does."""
    (problem,) = found_beside(fault).problems
    assert_names(problem, tmp_path / "my_trainers.py", _autoregister.VARIABLE)


# ---------------------------------------------------------------------------------------------------------- backends


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (1e-3, "1.0e-03"),
        (float("nan"), "nan"),
        (RuntimeError("LLVM gave up\nat great length"), "RuntimeError: LLVM gave up"),
    ],
)
def test_a_backend_that_computes_wrong_or_raises_is_a_problem(found, said, quick, advice):
    quick.errors["numba"] = found
    text = advice()
    assert_names(text, "numba", "cpu", said, *TILL_THEN)
    assert "at great length" not in text


def test_the_self_test_sees_wrong_gradients(monkeypatch):
    """The real one, with a backend whose values are right and whose gradients are not."""
    from swin_umamba_nnunet.ops import _numba

    right = _numba.backward_2d
    monkeypatch.setattr(_numba, "backward_2d", lambda *args: tuple(2 * one for one in right(*args)))
    assert verb._tested("numba", "cpu")["ok"] is False


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs of different architectures, and a backend for them."""
    found = [
        SimpleNamespace(name="NVIDIA A100", total_memory=40 * 2**30, major=8, minor=0),
        SimpleNamespace(name="NVIDIA B200", total_memory=180 * 2**30, major=10, minor=0),
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(found))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: found[index])
    report, resolve = ops.backend_report, ops.resolve_backend
    monkeypatch.setattr(ops, "backend_report", lambda kind: {"triton": "available"} if kind == "cuda" else report(kind))
    monkeypatch.setattr(ops, "resolve_backend", lambda name, kind: "triton" if kind == "cuda" else resolve(name, kind))


def test_every_gpu_computes_the_self_test(quick, gpus, doctor, advice):
    """Another architecture is compiled for anew, and may compute something else."""
    quick.errors["cuda:1"] = 1e-3
    assert "on cuda:0 (NVIDIA A100, compute capability 8.0): triton" in doctor(code=1)
    assert_names(advice(), "triton", "cuda:1", "NVIDIA B200", "10.0", "1.0e-03", *TILL_THEN)
    report = json.loads(doctor("--json", code=1))["backends"]
    assert report["cuda:0"]["self_test"]["triton"]["ok"] is True
    assert report["cuda:1"]["self_test"]["triton"]["ok"] is False


@pytest.mark.parametrize(
    ("variable", "facts"), [("SWIN_UMAMBA_BACKEND", ("numba", "portable")), ("SWIN_UMAMBA_SEED", ("whole number",))]
)
def test_a_variable_that_no_training_would_take(variable, facts, monkeypatch, advice):
    monkeypatch.setenv(variable, "nonsense")
    assert_names(advice(), variable, "'nonsense'", *facts)


# ------------------------------------------------------------------------------------------------- versions, devices


@pytest.mark.parametrize(
    ("package", "version", "facts"),
    [
        ("numba", None, ("numba is missing", "pip")),
        ("nnunetv2", "2.6.0", ("nnunetv2 2.6.0", "pip install")),
        ("torch", "2.9.1+cu128", ("torch 2.9.1", "3D convolutions", 'pip install "torch!=2.9.*"')),
        ("nnunetv2", "2.10.1", None),
        ("torch", "3.0.0a0+git", None),
        ("h5py", None, None),
    ],
)
def test_versions(monkeypatch, package, version, facts):
    real = verb.version_of
    monkeypatch.setattr(verb, "version_of", lambda name: version if name == package else real(name))
    verb.versions(found := verb.Section())
    assert len(found.problems) == bool(facts)
    for problem in found.problems:
        assert_names(problem, *facts)


def test_a_driver_without_a_torch_for_it(monkeypatch, advice):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert_names(advice(), "NVIDIA driver", f"torch {torch.__version__}", "nvidia-smi", "pytorch.org")


def test_the_environment_is_shown_with_meanings_and_without_passwords(quick, monkeypatch, tmp_path, doctor):
    absent = tmp_path / "absent"
    for name, value in {
        "SWIN_UMAMBA_FUSED_GLUE": "1",
        "https_proxy": "http://me:secret@proxy:3128",
        "nnUNet_raw": str(absent),
        "nnUNet_results": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    text = doctor()
    assert "secret" not in text
    lines = {line.split()[0]: line.strip() for line in text.splitlines() if line.startswith("  ") and line.strip()}
    for name, meaning in settings.MEANINGS.items():
        assert meaning in lines[name]
        assert lines[name].split()[1] == ("1" if name == "SWIN_UMAMBA_FUSED_GLUE" else "not")
    assert_names(lines["nnUNet_raw"], f"{absent} ", "no such folder")
    assert lines["nnUNet_results"].endswith(str(tmp_path))
    assert "not set" in lines["nnUNet_preprocessed"]
    assert set(settings.MEANINGS) <= set(json.loads(doctor("--json"))["environment"])


# ----------------------------------------------------------------------------------------------------------- weights


def test_weights_that_are_here_are_read_and_hashed(quick, published, doctor, advice, saved):
    """Under another one's name, or damaged, they are a problem."""
    tiny = published(folder=cache_folder(), sha256="0" * 64)
    facts = ("different", "not confirmed", "not here: vmamba_small_v0")
    assert_names(doctor(), f"vmamba_tiny_v0: {tiny}, sound", *facts)
    saved("vmamba_small_v0", tiny.name, tiny.parent)
    assert_names(advice(), tiny, "VMamba-Small (first release)", f"swin-umamba weights verify {tiny}")
    tiny.write_bytes(tiny.read_bytes()[:-50])
    assert_names(advice(), tiny, "damaged")


def test_a_named_file_is_examined_whatever_its_name(save, monkeypatch, doctor, advice, saved):
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(saved("vmamba_tiny_v0", "mine.pth")))
    assert "mine.pth, sound" in doctor()
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(save({"a": torch.zeros(1)}, "mine.pth")))
    assert_names(advice(), "mine.pth", "VMamba", "keys are a")


def test_weights_that_cannot_be(monkeypatch, tmp_path, advice):
    (tmp_path / "file").touch()
    with monkeypatch.context() as patch:
        patch.setenv(locate.ENVIRONMENT_VARIABLE, str(tmp_path / "absent.pth"))
        assert_names(advice(), locate.ENVIRONMENT_VARIABLE, tmp_path / "absent.pth", "exist")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_names(advice(), cache_folder(), "XDG_CACHE_HOME", locate.ENVIRONMENT_VARIABLE)
