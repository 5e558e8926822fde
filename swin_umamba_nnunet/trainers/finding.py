"""Trainers by name, as nnU-Net finds them: this package's, nnU-Net's, and those in folders of `nnUNet_extTrainer`."""

import contextlib
import io
import warnings
from collections.abc import Iterator

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from swin_umamba_nnunet import trainers
from swin_umamba_nnunet._autoregister import VARIABLE
from swin_umamba_nnunet.catalogue import suggestion, trainer_names


@contextlib.contextmanager
def quiet_search() -> Iterator[None]:
    """What nnU-Net says while it looks for a trainer is kept from the user: where it looks; and as it imports all of
    its trainers, that timm, which some of them use, decorates with torch.jit, which torch is about to drop."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", FutureWarning)
        yield


def find_trainer(name: str) -> type[nnUNetTrainer]:
    """The trainer class called `name`, wherever nnU-Net would find it.

    Raises:
        ValueError: there is none, what is called that is no trainer, or a module of the user's stops the search; the
            message says so in one sentence.
    """
    if name in trainer_names():
        return getattr(trainers, name)
    try:
        with quiet_search():
            return recursive_find_trainer_class_by_name(name)
    except Exception as error:  # a user's module may raise anything when it is imported
        if not (isinstance(error, RuntimeError) and "Could not find requested nnunet trainer" in str(error)):
            raise ValueError(
                f"nnU-Net stops while it looks for {name} ({type(error).__name__}: {error}); mend the file, or take it "
                f"out of {VARIABLE}"
            ) from error
        raise ValueError(
            f"nnU-Net finds no trainer called {name!r}; `swin-umamba list` shows this package's, and nnU-Net's own is "
            f"nnUNetTrainer{suggestion(name, before='; ')}"
        ) from error
