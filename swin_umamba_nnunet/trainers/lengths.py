"""Trainings of other lengths: one class per trainer and entry of `catalogue.LENGTHS`, generated.

nnU-Net names the results folder after the class and looks the class up by that name when it predicts, so each variant
is a class of its own and an attribute of this module.
"""

from swin_umamba_nnunet.catalogue import LENGTHS, TRAINERS, LengthRecord
from swin_umamba_nnunet.trainers import leaves
from swin_umamba_nnunet.trainers.base import MambaTrainer


def make_length_variant(trainer: type[MambaTrainer], length: LengthRecord, module: str) -> type[MambaTrainer]:
    """The class `trainer` + `length.suffix`, which the caller binds to that name in `module`."""
    name = trainer.__name__ + length.suffix
    attributes = {
        "__doc__": f"{trainer.__name__}, {length.summary}.",
        "__module__": module,
        "__qualname__": name,
        "num_epochs": length.epochs,
        "schedule_epochs": None if length.schedule_epochs == length.epochs else length.schedule_epochs,
        "scratch_trainer": trainer.scratch_trainer and trainer.scratch_trainer + length.suffix,
        **length.settings,
    }
    return type(name, (trainer,), attributes)


_VARIANTS = [
    make_length_variant(getattr(leaves, record.name), length, __name__) for record in TRAINERS for length in LENGTHS
]
globals().update({variant.__name__: variant for variant in _VARIANTS})

__all__ = [variant.__name__ for variant in _VARIANTS]
