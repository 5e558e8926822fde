"""The demo's own folder: where everything lies, what is done already, and the checks before anything is written."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from swin_umamba_nnunet._atomic import write_text
from swin_umamba_nnunet.cli.errors import CliError
from swin_umamba_nnunet.datasets import BRAIN_DATASET_NAME

_MARKER = ".swin_umamba_demo.json"  # a folder with this file is a demo folder; the file says which steps are done
_LOCK = ".swin_umamba_demo.lock"  # locked while a demo runs; the empty file stays, as filelock advises
_CONTENTS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "predictions", "logs")  # what --fresh deletes
STARTED, DONE = "started", "done"


class Workspace:
    """Paths inside the demo folder and the record of its steps.

    A step's key is its name, followed by a colon and the trainer if it depends on one: "plan", "train:TRAINER".
    """

    def __init__(self, folder: Path, order: tuple[str, ...]) -> None:
        """`order` names the steps; what comes later depends on what comes earlier."""
        self.folder = folder
        self.raw, self.preprocessed, self.results = (folder / name for name in _CONTENTS[:3])
        self.dataset = self.raw / BRAIN_DATASET_NAME
        self.logs = folder / "logs"
        self._order = order
        self._records: dict[str, str] = {}
        self._lock = FileLock(folder / _LOCK)

    def predictions(self, trainer: str) -> Path:
        """Where nnUNetv2_predict puts the held-out slabs' segmentations."""
        return self.folder / "predictions" / trainer

    def model(self, trainer: str) -> Path:
        """Where nnUNetv2_train puts the trained network."""
        return self.results / BRAIN_DATASET_NAME / f"{trainer}__nnUNetPlans__2d"

    def inspect(self) -> None:
        """Look at the folder without touching it, and recall what an earlier demo did in it.

        Raises:
            CliError: it is a file, or holds something that is not a demo.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise CliError(f"{self.folder} is a file; give --work a folder, which will be made if it does not exist")
        with _explained(self.folder):
            present = (
                sorted(path.name for path in self.folder.iterdir() if path.name != _LOCK)
                if self.folder.exists()
                else []
            )
        if present and _MARKER not in present:
            names = ", ".join(present[:3]) + ", ..." * (len(present) > 3)
            raise CliError(
                f"{self.folder} already holds something else ({names}) and is left alone; "
                "choose an empty or a new folder with --work DIR"
            )
        with _explained(self.folder):
            self._records = self._read()

    def claim(self, bytes_needed: int, fresh: bool = False) -> None:
        """Make the folder ready to be written to, by this process only.  Call `inspect` first and `release` at the end.

        Args:
            bytes_needed: free space that what is still to do may take.
            fresh: forget and delete what an earlier demo left.

        Raises:
            CliError: another demo is running in the folder, it cannot be written, or its disk is too full.
        """
        is_new = not self.folder.exists()
        with _explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._acquire()
        try:
            with _explained(self.folder):
                self._records = self._read()  # another demo may have ended here since `inspect`
                if fresh:
                    self._delete_earlier_demo()
                self._check_space(bytes_needed)
                self._write()
                self.logs.mkdir(exist_ok=True)
        except BaseException:
            if is_new and self.folder.is_dir():
                shutil.rmtree(self.folder, ignore_errors=True)
            self.release()
            raise

    def release(self) -> None:
        """Let other demos use the folder."""
        self._lock.release()

    def _acquire(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise CliError(
                f"another demo is running in {self.folder}; wait for it to end, or choose another with --work DIR"
            ) from None

    def free_bytes(self) -> int:
        """Free space on the folder's disk."""
        return shutil.disk_usage(self.folder).free

    def _check_space(self, bytes_needed: int) -> None:
        if self.free_bytes() < bytes_needed:
            raise CliError(
                f"the disk of {self.folder} has {self.free_bytes() / 1e9:.1f} GB free and the demo needs "
                f"{bytes_needed / 1e9:.1f} GB (mostly for the training's checkpoints); make room, or choose another "
                "place with --work DIR"
            )

    def is_done(self, key: str, output: Path) -> bool:
        """True if the step was finished in this folder and what it made is still there."""
        return self._records.get(key) == DONE and output.exists()

    def is_started(self, key: str) -> bool:
        """True if the step was begun here on inputs that have not changed since."""
        return key in self._records

    def start(self, key: str) -> None:
        """Note that a step begins: it, and every step that depends on its result, is not done (any more)."""
        self._records = {other: status for other, status in self._records.items() if not self._depends(other, key)}
        self._records[key] = STARTED
        self._write()

    def finish(self, key: str) -> None:
        """Note that a step is done."""
        self._records[key] = DONE
        self._write()

    def _depends(self, key: str, on: str) -> bool:
        name, _, trainer = key.partition(":")
        other_name, _, other_trainer = on.partition(":")
        return self._order.index(name) > self._order.index(other_name) and other_trainer in ("", trainer)

    def _delete_earlier_demo(self) -> None:
        for name in _CONTENTS:
            if (self.folder / name).exists():
                shutil.rmtree(self.folder / name)
        for kind in ("png", "txt"):
            for result in self.folder.glob(f"nnUNetTrainer*.{kind}"):
                result.unlink()
        self._records = {}

    def _read(self) -> dict[str, str]:
        with contextlib.suppress(FileNotFoundError, ValueError, AttributeError):
            records = json.loads((self.folder / _MARKER).read_text(encoding="utf-8"))["steps"]
            return {key: status for key, status in records.items() if key.partition(":")[0] in self._order}
        return {}

    def _write(self) -> None:
        write_text(self.folder / _MARKER, json.dumps({"steps": self._records}, indent=2) + "\n")


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one sentence."""
    try:
        yield
    except OSError as error:
        raise CliError(
            f"the work folder {folder} cannot be used ({error.strerror or error}); choose another with --work DIR"
        ) from error
