"""`swin-umamba doctor`: what is installed, what can run here, whether nnU-Net finds the trainers; what to do if not."""

import argparse
import json
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swin_umamba_nnunet import __version__, _autoregister, settings
from swin_umamba_nnunet._distribution import repository, version_of
from swin_umamba_nnunet._text import byte_size, table
from swin_umamba_nnunet.catalogue import TRAINERS
from swin_umamba_nnunet.pretrained import ENVIRONMENT_VARIABLE, RECORDS, WeightsError, cache_folder, locate

logger = logging.getLogger(__name__)

DESCRIPTION = """\
Check this installation: versions, devices, which backend runs the selective scan, whether it computes values and
gradients right (on every GPU), how fast, and why the others do not run, whether nnU-Net finds the trainers, the
environment variables, and the ImageNet weights on this machine.  It takes half a minute, more where a backend is
compiled for the first time.

Ends with one verdict: what is wrong with the installation and how to put it right, or that it works; and what to do
before a training here.  The exit code is 0 if nothing is wrong with the installation, else 1.
"""

# distributions without which nothing works, and those that something works without
NEEDED = ("nnunetv2", "torch", "numba", "numpy", "dynamic_network_architectures", "SimpleITK", "matplotlib")
OPTIONAL = ("triton", "mamba-ssm", "causal-conv1d", "nilearn", "h5py", "surface-distance", "MedPy")

# What nnUNetv2_train does to find a trainer, in an interpreter as fresh as its own.  Printed at last: for each trainer
# where its class was defined, null if nowhere.  nnU-Net forgets a module that lies in an external folder itself, whose
# name must then do.  A file there that cannot be imported ends every search, nnU-Net's too: its name is the finding.
_FINDER = """
import json, os, sys, traceback
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
def place(trainer):
    try:
        name = find(trainer).__module__
    except RuntimeError as error:
        if "Could not find requested nnunet trainer" in str(error):
            return None
        raise
    file = getattr(sys.modules.get(name), "__file__", None)
    return os.path.dirname(file) if file else "a module named " + name
try:
    print(json.dumps({trainer: place(trainer) for trainer in sys.argv[1:]}))
except (Exception, SystemExit) as error:
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        files.append(error.filename)
    listed = os.environ.get("nnUNet_extTrainer", "").split(os.pathsep)
    folders = tuple(os.path.abspath(folder) + os.sep for folder in listed if folder.strip())
    blamed = [file for file in files if file and os.path.abspath(file).startswith(folders)]
    said = type(error).__name__ + ": " + str(error)
    if blamed:
        said = f"{blamed[-1]} cannot be imported ({said}); mend it, or take its folder out of nnUNet_extTrainer"
    sys.exit(" ".join(said.split()))
"""


@dataclass
class Section:
    """Findings of one check.

    Attributes:
        data: the findings, for JSON.
        lines: the same for the screen.
        problems: what is wrong with the installation and what to do about it, a sentence each.
        missing: what a training still needs here, a sentence each; the installation is sound without.
    """

    data: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def versions(found: Section) -> None:
    """Installed packages, and those that are missing or of a version that cannot work."""
    python, system = platform.python_version(), platform.platform()
    installed = {name: version_of(name) for name in NEEDED + OPTIONAL}
    found.data = {
        "swin_umamba_nnunet": __version__,
        "python": python,
        "platform": system,
        "executable": sys.executable,
        **installed,
    }
    rows = [(name, v or "not installed" + " (optional)" * (name in OPTIONAL)) for name, v in installed.items()]
    found.lines = [f"swin_umamba_nnunet {__version__} on Python {python}, {system}", "", *table(rows)]
    found.problems = [
        f"{name} is missing; install this package again with pip, which brings it"
        for name in NEEDED
        if not installed[name]
    ]
    nnunet, torch = installed["nnunetv2"], installed["torch"]
    if nnunet and _numbers(nnunet) < [2, 8]:
        found.problems.append(
            f"nnunetv2 {nnunet} does not look for trainers outside of itself, 2.8 and later do: "
            'pip install -U "nnunetv2>=2.8"'
        )
    if torch and _numbers(torch) == [2, 9]:
        found.problems.append(
            f"torch {torch} computes 3D convolutions under mixed precision several times slower than other versions "
            'and is excluded by nnU-Net and by this package: pip install "torch!=2.9.*"'
        )


def _numbers(version: str) -> list[int]:
    return list(map(int, re.findall(r"\d+", version)[:2]))


def devices(found: Section) -> None:
    """CPU and GPUs as torch sees them."""
    import torch

    cores, threads, mps = os.cpu_count(), torch.get_num_threads(), torch.backends.mps.is_available()
    gpus = _gpus()
    found.data = {
        "cpu_cores": cores,
        "torch_threads": threads,
        "gpus": [
            {"name": gpu.name, "memory_gib": gpu.total_memory / 2**30, "capability": f"{gpu.major}.{gpu.minor}"}
            for gpu in gpus
        ],
        "torch_cuda": torch.version.cuda,
        "mps": mps,
    }
    found.lines = [
        f"CPU   {cores} cores, torch uses {threads} threads",
        *(f"CUDA  {index}: {_called(gpu)}, {byte_size(gpu.total_memory)}" for index, gpu in enumerate(gpus)),
        *["MPS   Apple GPU"] * mps,
    ]
    if gpus:
        return
    found.lines.append("CUDA  no GPU found")
    if shutil.which("nvidia-smi"):
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        found.problems.append(
            f"there is an NVIDIA driver here, but torch {torch.__version__} ({built}) finds no GPU; if nvidia-smi "
            "shows one, install the torch that suits its driver (pytorch.org, Get Started)"
        )
    found.missing.append(
        f"there is no NVIDIA GPU: nnUNetv2_train and nnUNetv2_predict need `-device {'mps' if mps else 'cpu'}`; on "
        "a CPU a training of full length takes weeks (`swin-umamba list` has short variants)"
    )


def _gpus() -> list[Any]:
    """Those that torch can use, of whatever architectures; with too old a driver it still counts, and then raises."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.cuda.get_device_properties(index) for index in range(count)]


def _called(gpu: Any) -> str:
    return f"{gpu.name}, compute capability {gpu.major}.{gpu.minor}"


def backends(found: Section) -> None:
    """Per device: the backend that runs, why the others do not, a short test of values and gradients, and speed."""
    import torch

    from swin_umamba_nnunet import ops
    from swin_umamba_nnunet.ops._selftest import ALLOWED_ERROR

    places = {"cpu": "cpu"} | ({"mps": "mps"} if torch.backends.mps.is_available() else {})
    places |= {f"cuda:{index}": f"cuda:{index} ({_called(gpu)})" for index, gpu in enumerate(_gpus())}
    where = f"at {address} " if (address := repository()) else ""
    for device, called in places.items():
        kind = torch.device(device).type
        states, chosen = ops.backend_report(kind), None
        try:
            chosen = ops.resolve_backend(None, kind)
        except (ops.BackendUnavailableError, ValueError) as error:
            if str(error) not in found.problems:
                found.problems.append(str(error))
        tests = {name: _tested(name, device) for name, state in states.items() if state == "available"}
        found.data[device] = {"runs": chosen, "states": states, "self_test": tests}
        rows = [
            (f"  {name}", f"{state}; {tests[name]['message']}" if name in tests else state)
            for name, state in states.items()
        ]
        found.lines += [f"on {called}: {chosen or 'none'} runs", *table(rows)]
        found.problems += [
            f"the backend {name} fails its test on {called} ({test['message']}); please report this {where}with the "
            "output of `swin-umamba doctor --json`, and name another one in SWIN_UMAMBA_BACKEND till then"
            for name, test in tests.items()
            if not test["ok"]
        ]
    found.lines.append(
        f"(test: largest relative L2 error of output and all gradients, float32 against float64; up to "
        f"{ALLOWED_ERROR:g} is right. Speed: updates of a state, forward, projections included)"
    )


def _tested(backend: str, device: str) -> dict[str, Any]:
    """Error of a backend against the float64 reference on a small uneven image, and its speed."""
    from swin_umamba_nnunet.ops import _selftest

    began = time.monotonic()
    try:
        error = float(_selftest.worst_error(backend, device))
        seconds = round(time.monotonic() - began, 2)
        speed = _selftest.giga_state_steps(backend, device)
    except Exception as failure:  # whatever a compiler or a driver raises is the finding
        logger.debug("self-test of %s on %s", backend, device, exc_info=True)
        return {"ok": False, "message": _first_line(failure)}
    right = error <= _selftest.ALLOWED_ERROR
    said = f"{'right' if right else 'WRONG'}, error {error:.1e}, {speed:.2g} G state-steps/s"
    return {"ok": right, "message": said, "relative_l2_error": error, "seconds": seconds, "giga_state_steps": speed}


def trainers(found: Section) -> None:
    """Where nnU-Net finds each trainer of the catalogue: asked with its own finder, in a fresh process."""
    names = [record.name for record in TRAINERS]
    done = subprocess.run([sys.executable, "-c", _FINDER, *names], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        message = (done.stderr.strip() or "no message").splitlines()[-1]
        found.data = {"found": {}, "message": message}
        found.lines = ["nnU-Net failed while it looked for them"]
        found.problems = [f"nnU-Net failed while it looked for the trainers: {message}"]
        return
    places: dict[str, str | None] = json.loads(done.stdout.strip().splitlines()[-1])
    found.data = {"found": places, "message": None}
    ours = Path(_autoregister.FOLDER).with_name("trainers")
    missing = [name for name, place in places.items() if place is None]
    foreign = [(name, place) for name, place in places.items() if place and Path(place).resolve() != ours.resolve()]
    own = len(places) - len(missing) - len(foreign)
    found.lines = [
        f"nnU-Net finds {own} of {len(places)} (and their variants of other lengths) in {ours}",
        *(f"{name} is found nowhere" for name in missing),
        *(f"{name} is found in {place}" for name, place in foreign),
    ]
    if own == len(foreign) == 0:
        found.problems.append(_why_none())
    elif missing:
        found.problems.append(
            f"nnU-Net finds some of the trainers and not {missing[0]}; {_autoregister.VARIABLE} may name the folder of "
            f"another version of this package: expected {_autoregister.FOLDER}"
        )
    for name, place in foreign[:1]:
        found.problems.append(
            f"nnU-Net takes {name} from {place} and not from this package; remove that one, or its folder from "
            f"{_autoregister.VARIABLE}"
        )


def _why_none() -> str:
    if _autoregister.switched_off():
        return f"{_autoregister.SWITCH} is set, so nnU-Net is not told about the trainers; unset it"
    value = os.pathsep.join([*_autoregister.users_folders(), _autoregister.FOLDER])
    command, value = ("set", value) if os.name == "nt" else ("export", shlex.quote(value))
    line = f"{command} {_autoregister.VARIABLE}={value}"
    return f"start-up lines do not run in this environment; add this line to your shell's profile:   {line}"


def environment(found: Section) -> None:
    """The variables that change what this package and nnU-Net do."""
    rows, unset = [], []
    for name in (*settings.MEANINGS, *settings.FOLDERS, *settings.OTHERS):
        found.data[name] = value = settings.read(name)
        said = value or "not set"
        if name in settings.MEANINGS:
            said += f"   ({settings.MEANINGS[name]})"
        elif name in settings.FOLDERS:
            said += _folder(found, name, value)
        elif value is None:
            unset.append(name)
            continue
        rows.append((name, said))
    for parse, name in ((settings.number, "SWIN_UMAMBA_SEED"), (settings.switch, "SWIN_UMAMBA_FUSED_GLUE")):
        try:
            parse(name)
        except ValueError as error:
            found.problems.append(str(error))
    proxies = {name: "set" for name in settings.PROXIES if settings.read(name)}
    found.data |= proxies
    found.lines = [*table([*rows, *proxies.items()]), f"not set: {', '.join(unset)}" if unset else ""]


def _folder(found: Section, name: str, value: str | None) -> str:
    """A remark on one of nnU-Net's folders; what a training needs of it goes to what is missing."""
    if value is None:
        found.missing.append(f"{name} is not set: export it with the path of {settings.FOLDERS[name]}")
        return "; nnU-Net's commands need it"
    absent = not os.path.isdir(value)
    if name == "nnUNet_raw" and absent:
        found.missing.append(f"{name} is {value}, and there is no such folder: put your datasets there")
    elif name != "nnUNet_raw" and not _can_be_written(Path(value)):
        found.missing.append(f"{name} is {value}, which cannot be written: name another folder")
    return " (no such folder yet)" * absent


def _can_be_written(folder: Path) -> bool:
    """Whether a file can be made in a folder that may have to be made itself."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)


def weights(found: Section) -> None:
    """Which checkpoints are here and sound.  Missing ones are no problem: a training fetches what it needs."""
    found.data = {"files": {}}
    try:
        named, folders, cache = locate.named_file(), locate.searched_folders(), cache_folder()
    except WeightsError as error:
        found.problems.append(str(error))
        return
    if named is not None:
        _look(found, ENVIRONMENT_VARIABLE, named)
    absent = []
    for record in RECORDS:
        found.data["files"][record.name] = None
        if path := locate.find_in_folders(record, folders):
            _look(found, record.name, path)
        else:
            absent.append(record.name)
    searched = found.data["folders"] = list(map(str, folders))
    if absent:
        found.lines.append(f"not here: {', '.join(absent)}; a training fetches what it needs")
    wanted = {record.weights for record in TRAINERS if record.weights}
    if wanted <= set(absent) and named is None:
        found.missing.append(
            f"{', '.join(sorted(wanted))} are not here: the trainers that start from them "
            "fetch what they need, which takes a network; to have it before, `swin-umamba weights fetch TRAINER`. "
            "Trainers whose names end in Scratch need none"
        )
    found.lines.append(f"folders searched: {', '.join(searched)}")
    if absent and not _can_be_written(cache):
        found.lines.append(f"downloads would go to {cache}")
        found.problems.append(
            f"{cache} cannot be written, so no training can fetch weights; set XDG_CACHE_HOME to a folder that can, or "
            f"{ENVIRONMENT_VARIABLE} to the file"
        )


def _look(found: Section, name: str, path: Path) -> None:
    """Read a checkpoint and compare it with what is published."""
    from swin_umamba_nnunet.pretrained.checkpoint import examine_checkpoint

    data = found.data["files"][name] = {"path": str(path), "ok": False}
    try:
        finding = examine_checkpoint(path)
    except WeightsError as error:
        data["message"] = str(error)
        found.lines.append(f"{name}: {path} cannot be used")
        found.problems.append(str(error))
        return
    faults, verdict = [f"it is {finding.variant}"], "nothing to compare with"
    if record := finding.record:
        faults, verdict = list(finding.faults), record.verdict_on(finding.sha256)
        data["is"] = record.name
        if name not in (record.name, ENVIRONMENT_VARIABLE):
            faults.append(f"it is {record.title}, not what its name says")
    data |= {"ok": not faults, "sha256": finding.sha256, "hash": verdict, "faults": faults}
    found.lines += [
        f"{name}: {path}, {'FAULTY' if faults else 'sound'}",
        f"  sha256 {finding.sha256}: {verdict}",
    ]
    found.problems += [f"{path}: {fault}; `swin-umamba weights verify {path}` says more" for fault in faults]


CHECKS: dict[Callable[[Section], None], str] = {
    versions: "versions",
    devices: "devices",
    backends: "selective scan (every backend is tested, and compiled first where that has not been done)",
    trainers: "trainers (nnU-Net is asked for them)",
    environment: "environment variables",
    weights: "ImageNet weights",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    told = "print the findings as JSON, to paste into a bug report; the home folder is written as ~"
    parser.add_argument("--json", action="store_true", help=told)


def run(args: argparse.Namespace) -> bool:
    """Print the findings, each under a title that is there before the check begins, then the advice.

    With --json the titles go to stderr.

    Returns:
        Whether there is any advice about the installation, which is the exit code.
    """
    report: dict[str, Any] = {}
    missing, problems = [], []
    for check, title in CHECKS.items():
        print(title, file=sys.stderr if args.json else sys.stdout, flush=True)
        found = _found_by(check)
        report[check.__name__] = found.data
        missing += found.missing
        problems += found.problems
        if not args.json:
            print("\n".join(f"  {line}".rstrip() for line in found.lines) + "\n", flush=True)
    if args.json:
        print(_without_home(json.dumps(report | {"missing": missing, "problems": problems}, indent=2)))
    else:
        before = "And before a training here:" if problems else "The installation works. Before a training here:"
        advice = {"Something is wrong with the installation. To put right:": problems, before: missing}
        for title, sentences in advice.items():
            if sentences:
                print("\n".join([title, *(f"  - {sentence}" for sentence in sentences)]))
        if not problems + missing:
            print("The installation works, and a training can start.")
    return bool(problems)


def _found_by(check: Callable[[Section], None]) -> Section:
    """What a check finds; one that fails itself is a finding too, or a broken library would hide all the others."""
    found = Section()
    try:
        check(found)
    except Exception as error:
        logger.debug("the check %s failed", check.__name__, exc_info=True)
        said = f"could not be checked: {_first_line(error)}"
        return Section({"message": said}, [said], [f"{check.__name__} {said}"])
    return found


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def _without_home(text: str) -> str:
    """Whoever pastes this into a public issue need not tell the name of the account."""
    home = os.path.expanduser("~")
    if len(home) < 2 or home == "~":
        return text
    return re.sub(re.escape(json.dumps(home)[1:-1]) + r'(?=[/\\":])', "~", text)
