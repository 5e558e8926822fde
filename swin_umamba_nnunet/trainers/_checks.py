"""What is refused before a trainer writes its first file, and how a refusal is shown."""

import contextlib
import sys
from collections.abc import Iterator, Sequence

import torch

from swin_umamba_nnunet.ops import resolve_backend


def check_patch(
    trainer: str, patch_size: Sequence[int], configuration: str | None = None, dims: Sequence[int] = (2,)
) -> None:
    """Accept a patch of at least one pixel per axis, of as many axes as the network takes.

    Args:
        trainer: name of the trainer, for the message.
        patch_size: in pixels, of the configuration.
        configuration: its name, where it is known.
        dims: numbers of axes the trainer's network takes.

    Raises:
        ValueError: anything else.
    """
    patch = tuple(int(size) for size in patch_size)
    which = "the configuration" if configuration is None else f"the configuration {configuration!r}"
    if len(patch) not in dims:
        kinds = " and ".join(f"{axes}D" for axes in dims)
        raise ValueError(
            f"{trainer} is for {kinds} networks, but {which} has {len(patch)}D patches {patch}; "
            f"choose a {kinds} configuration, as in: nnUNetv2_train DATASET 2d FOLD -tr {trainer}"
        )
    if min(patch) < 1:
        raise ValueError(
            f"the patch size of {which} is {patch}, but every side must be at least one pixel; "
            "correct it in the plans file, or plan the dataset again with nnUNetv2_plan_experiment"
        )


def check_device(device: torch.device, backend: str | None = None, scans: bool = True) -> None:
    """Make sure that the training can run on `device`.

    Args:
        device: of the training.
        backend: what the trainer's network settings ask for; None for the environment variable or a choice.
        scans: whether a selective-scan backend is needed at all.

    Raises:
        RuntimeError: the device is not there.
        ValueError: no backend is called that.
        BackendUnavailableError: it is, but no backend (or not the one asked for) can run on it.
    """
    if device.type == "cuda" and not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise RuntimeError(
            f"-device cuda (nnU-Net's default) was asked for, but PyTorch {torch.__version__} ({built}) sees no GPU; "
            "add -device cpu to the command, or install a driver and a PyTorch build that see the GPU"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RuntimeError(
            f"-device mps was asked for, but PyTorch {torch.__version__} sees no Apple GPU here; "
            "add -device cpu to the command"
        )
    if scans:
        resolve_backend(backend, device.type)


@contextlib.contextmanager
def told_alone(*kinds: type[Exception]) -> Iterator[None]:
    """Errors of these kinds are sentences for the user: uncaught, Python prints them without a traceback.

    nnU-Net's commands catch nothing, so the message would be the last of dozens of lines.  What is raised instead is of
    the same class, so that everybody who catches it still does (torch's DDP processes among them, which report it to
    the first), and a SystemExit with the message: the process ends with exit code 1.

    An interactive Python, which a SystemExit would end, gets the error as it is; so does everybody where no class can
    be both (of the layout of UnicodeDecodeError, for one).
    """
    try:
        yield
    except kinds as error:
        interactive = hasattr(sys, "ps1") or sys.flags.interactive
        if isinstance(error, SystemExit) or interactive or (alone := _with_exit(error)) is None:
            raise
        raise alone from error


def _with_exit(error: Exception) -> Exception | None:
    kind = type(error)
    members = {"__module__": kind.__module__, "__reduce__": lambda self: error.__reduce__()}  # pickled as what it was
    try:
        both = type(kind.__name__, (kind, SystemExit), members)
        alone: Exception = kind.__new__(both)
    except TypeError:
        return None
    # not by its constructor, which may take other arguments than it leaves in args, as JSONDecodeError's does
    alone.args = error.args
    alone.__dict__.update(error.__dict__)
    alone.code = str(error)  # type: ignore[attr-defined]
    return alone
