"""Trainers by name, as nnU-Net finds them: this package's, nnU-Net's, and those in folders of `nnUNet_extTrainer`."""

import contextlib
import difflib
import io

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from swin_umamba_nnunet import trainers
from swin_umamba_nnunet.catalogue import trainer_names


def find_trainer(name: str) -> type[nnUNetTrainer]:
    """The trainer class called `name`, wherever nnU-Net would find it.

    Raises:
        ValueError: there is none, or what is called that is no trainer.
        Exception: what a module of the user's raises when it is imported.
    """
    if name in trainer_names():
        return getattr(trainers, name)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it tells where it looks
            return recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        if "Could not find requested nnunet trainer" not in str(error):
            raise
        near = difflib.get_close_matches(name, trainer_names(), n=1, cutoff=0.85)
        guess = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(
            f"nnU-Net finds no trainer called {name!r}{guess}; `swin-umamba list` shows this package's, and "
            "nnU-Net's own is nnUNetTrainer"
        ) from error
