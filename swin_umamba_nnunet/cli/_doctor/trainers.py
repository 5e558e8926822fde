"""Whether nnU-Net finds the trainers: asked with its own finder, in a fresh process."""

import json
import os
import subprocess
import sys

from swin_umamba_nnunet import _autoregister
from swin_umamba_nnunet.benchmark.process import export_lines
from swin_umamba_nnunet.catalogue import TRAINERS
from swin_umamba_nnunet.cli._doctor.section import Section

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


def trainers() -> Section:
    """Where nnU-Net finds each trainer of the catalogue."""
    section = Section("trainers", {"found": {}, "message": None})
    names = [record.name for record in TRAINERS]
    try:
        done = subprocess.run([sys.executable, "-c", _FINDER, *names], capture_output=True, text=True, check=False)
    except OSError as error:
        section.problems.append(f"Python could not be started to ask nnU-Net for the trainers: {error}")
        return section
    if done.returncode != 0:
        section.data["message"] = (done.stderr.strip() or "no message").splitlines()[-1]
        section.lines.append("  nnU-Net failed while it looked for them")
        section.problems.append(f"nnU-Net failed while it looked for the trainers: {section.data['message']}")
        return section
    found: dict[str, str | None] = json.loads(done.stdout.strip().splitlines()[-1])
    section.data["found"] = found
    ours = os.path.join(os.path.dirname(_autoregister.FOLDER), "trainers")
    own = [name for name, place in found.items() if place is not None and _same(place, ours)]
    section.lines.append(f"  nnU-Net finds {len(own)} of {len(found)} (and their variants of other lengths) in {ours}")
    for name, place in found.items():
        if name not in own:
            section.lines.append(f"  {name} is found {'nowhere' if place is None else f'in {place}'}")
    missing = [name for name, place in found.items() if place is None]
    foreign = {name: place for name, place in found.items() if place is not None and name not in own}
    if len(missing) == len(found):
        section.problems.append(_why_none())
    elif missing:
        section.problems.append(
            f"nnU-Net finds some of the trainers and not {missing[0]}; {_autoregister.VARIABLE} may name the folder of "
            f"another version of this package: expected {_autoregister.FOLDER}"
        )
    if foreign:
        name, place = next(iter(foreign.items()))
        section.problems.append(
            f"nnU-Net takes {name} from {place} and not from this package; remove that one, or its folder from "
            f"{_autoregister.VARIABLE}"
        )
    return section


def _why_none() -> str:
    if _autoregister.switched_off():
        return f"{_autoregister.SWITCH} is set, so nnU-Net is not told about the trainers; unset it"
    former = [folder for folder in os.environ.get(_autoregister.VARIABLE, "").split(os.pathsep) if folder]
    others = [folder for folder in former if folder != _autoregister.FOLDER]
    folders = os.pathsep.join([*others, _autoregister.FOLDER])
    line = export_lines({_autoregister.VARIABLE: folders})[0]
    return f"start-up lines do not run in this environment; add this line to your shell's profile:   {line}"


def _same(one: str, other: str) -> bool:
    return os.path.normcase(os.path.realpath(one)) == os.path.normcase(os.path.realpath(other))
