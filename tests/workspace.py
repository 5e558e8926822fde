"""An environment with the package, nnU-Net's folders and a preprocessed dataset, for tests of whole commands.

Environment and dataset are prepared once per run of the tests, whatever the number of workers; each worker has its own
copy of nnU-Net's folders.
"""

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

import torch
from filelock import FileLock

from swin_umamba_nnunet.pretrained import get_record
from swin_umamba_nnunet.pretrained.variants import inventory
from swin_umamba_nnunet.settings import FOLDERS, user_cache_folder
from tests import synthetic_dataset as dataset
from tests import warm
from tests.installed import ROOT, Environment, build_wheel, make_environment

NO_WORKERS = ("-npp", "0", "-nps", "0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workspace(Environment):
    """An environment with nnU-Net's folders, the preprocessed dataset and the user's own trainers, all in `folder`."""

    folder: Path

    @property
    def cold(self):
        """The same with a process of its own for each command, as a user's shell starts it."""
        return dataclasses.replace(self, warm=None)

    def ok(self, *command, **variables):
        """Output of a command that has to succeed."""
        result = self.command(*command, **variables)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
        return result.stdout

    @property
    def images(self):
        """The folder of raw images to predict."""
        return self.folder / "nnUNet_raw" / dataset.NAME / "imagesTs"

    def prediction(self, trainer, output, configuration="2d", plans="nnUNetPlans"):
        """nnU-Net's command that predicts them."""
        which = ("-d", "901", "-c", configuration, "-p", plans, "-tr", trainer, "-f", "0", "-device", "cpu")
        return ("nnUNetv2_predict", *NO_WORKERS, *which, "-i", self.images, "-o", output)

    def results(self, trainer, configuration="2d", plans="nnUNetPlans"):
        return self.folder / "nnUNet_results" / dataset.NAME / f"{trainer}__{plans}__{configuration}"

    def fold(self, trainer):
        return self.results(trainer) / "fold_0"

    def log(self, trainer):
        """All logs of the trainings of a trainer, in order."""
        return "".join(path.read_text() for path in sorted(self.fold(trainer).glob("training_log_*.txt")))

    def checkpoint(self, trainer, name="checkpoint_final.pth"):
        return torch.load(self.fold(trainer) / name, map_location="cpu", weights_only=False)

    @property
    def everything(self):
        return {str(path) for path in (self.folder / "nnUNet_results").rglob("*")}


def once_per_run(tmp_path_factory, name, make):
    """The folder that `make` has filled, for the first worker that asks; the others wait for it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / name
    with FileLock(base / f"{name}.lock"):
        if not folder.exists():
            partial = base / f"{name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            make(partial)
            partial.rename(folder)
    return folder


def prepare(folder):
    """Raw and preprocessed dataset in `folder`."""
    for name in FOLDERS:
        (folder / name).mkdir()
    dataset.write_raw_dataset(folder / "nnUNet_raw")
    entry = "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry as run"
    plan = ("-d", "901", "-c", "2d", "3d_fullres", "-np", "1", "1", "-npfp", "1")
    done = subprocess.run(
        [warm.warm_python(), "-c", f"{entry}; run()", *plan],
        env={**os.environ, **variables(folder), "nnUNet_n_proc_DA": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    dataset.change_plans(folder / "nnUNet_preprocessed")


def write_imagenet_file(path, name="vmamba_tiny_v0"):
    """A file with the keys and shapes of a published one, all values alike."""
    shapes = inventory(get_record(name))
    path.parent.mkdir(exist_ok=True)
    torch.save({"model": {key: torch.tensor(0.01).expand(shape) for key, shape in shapes.items()}}, path)
    return path


def installed_editable(tmp_path_factory):
    """The package, installed editable."""
    return Environment(once_per_run(tmp_path_factory, "editable", lambda at: make_environment(at, "--editable", ROOT)))


def built_wheel(tmp_path_factory):
    """The wheel of this checkout."""
    (wheel,) = once_per_run(tmp_path_factory, "wheel", build_wheel).glob("*.whl")
    return wheel


def installed_wheel(tmp_path_factory):
    """The package, installed from its wheel."""
    wheel = built_wheel(tmp_path_factory)
    return Environment(once_per_run(tmp_path_factory, "from_wheel", lambda at: make_environment(at, wheel)))


def make_workspace(tmp_path_factory):
    """This worker's workspace."""
    prepared = once_per_run(tmp_path_factory, "prepared", prepare)
    folder = tmp_path_factory.mktemp("workspace")
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    (folder / "own").mkdir()
    own = variables(folder) | {
        "nnUNet_extTrainer": str(folder / "own"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9"),
    }
    python = warm.warm_python() if warm.AVAILABLE else None
    return Workspace(installed_editable(tmp_path_factory).venv, own, python, folder=folder)


def variables(folder):
    """Environment variables of nnU-Net with its folders in `folder`, and a few processes and threads only."""
    return {
        **{name: str(folder / name) for name in FOLDERS},
        "nnUNet_def_n_proc": "1",
        "nnUNet_n_proc_DA": "0",
        "OMP_NUM_THREADS": "1",
        "NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR") or os.path.join(user_cache_folder(), "numba"),
    }
