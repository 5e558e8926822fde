"""Trainings of other lengths: one class per trainer and entry of `catalogue.LENGTHS`, generated.

nnU-Net names the results folder after the class and looks the class up by that name when it predicts, so each variant
is a class of its own and an attribute of this module.
"""

from swin_umamba_nnunet.catalogue import TRAINERS, LengthRecord, TrainerRecord, lengths_of
from swin_umamba_nnunet.trainers import backbones, controls, leaves, umamba, vm_unet
from swin_umamba_nnunet.trainers.base import NetworkTrainer

MODULES = (leaves, backbones, controls, vm_unet, umamba)  # where the trainers of whole length are


def get_leaf(name: str) -> type[NetworkTrainer]:
    """The trainer of whole length called `name`."""
    return next(getattr(module, name) for module in MODULES if hasattr(module, name))


def make_length_variant(
    trainer: type[NetworkTrainer], length: LengthRecord, module: str, whole: int
) -> type[NetworkTrainer]:
    """The class `trainer` + `length.suffix`, which the caller binds to that name in `module`.

    Args:
        trainer: of whole length.
        length: which variant.
        module: name of the module the class will be an attribute of.
        whole: epochs of the whole length.
    """
    name = trainer.__name__ + length.suffix
    attributes = {
        "__doc__": f"{trainer.__name__}, {length.summary.format(whole=whole)}.",
        "__module__": module,
        "__qualname__": name,
        "num_epochs": length.epochs,
        "schedule_epochs": whole if length.stops_early else None,
        "scratch_trainer": trainer.scratch_trainer and trainer.scratch_trainer + length.suffix,
        **length.settings,
    }
    return type(name, (trainer,), attributes)


def _variants_of(record: TrainerRecord) -> list[type[NetworkTrainer]]:
    return [
        make_length_variant(get_leaf(record.name), length, __name__, record.epochs) for length in lengths_of(record)
    ]


_VARIANTS = [variant for record in TRAINERS for variant in _variants_of(record)]
globals().update({variant.__name__: variant for variant in _VARIANTS})

__all__ = [variant.__name__ for variant in _VARIANTS]
