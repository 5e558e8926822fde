"""The trainers: a class per entry of `catalogue.TRAINERS`, and one per length of `catalogue.LENGTHS`, generated.

nnU-Net names the results folder after the class and looks the class up by that name when it predicts, so each is a
class of its own and an attribute of this module.
"""

from swin_umamba_nnunet import networks
from swin_umamba_nnunet.catalogue import TRAINERS, LengthRecord, TrainerRecord, get_network, lengths_of
from swin_umamba_nnunet.trainers.base import NetworkTrainer
from swin_umamba_nnunet.trainers.recipes import MambaTrainer, UMambaTrainer, VMUNetTrainer

# What trains a network; MambaTrainer where nothing is said.
RECIPES = {"VMUNet": VMUNetTrainer, "UMambaBot": UMambaTrainer, "UMambaEnc": UMambaTrainer}


def make_trainer(record: TrainerRecord, module: str) -> type[NetworkTrainer]:
    """The class that a record describes, which the caller binds to its name in `module`."""
    network = getattr(networks, record.network)
    attributes = {
        "__doc__": f"{record.summary} ({get_network(record.network).paper}).\n\n{record.notes}".rstrip(),
        "__module__": module,
        "network_class": network,
        "network_settings": dict(record.settings),
        "dims": record.dims,
        "enable_deep_supervision": record.deep_supervision,
        "imagenet_weights": record.weights and getattr(network, "imagenet_weights", record.weights),
        "scratch_trainer": record.scratch if record.pretrained else "",
    }
    return type(record.name, (RECIPES.get(record.network, MambaTrainer),), attributes)


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
    attributes = {
        "__doc__": f"{trainer.__name__}, {length.summary.format(whole=whole)}.",
        "__module__": module,
        "num_epochs": length.epochs,
        "schedule_epochs": whole if length.stops_early else None,
        "scratch_trainer": trainer.scratch_trainer and trainer.scratch_trainer + length.suffix,
        **length.settings,
    }
    return type(trainer.__name__ + length.suffix, (trainer,), attributes)


__all__ = []
for _record in TRAINERS:
    _whole = make_trainer(_record, __name__)
    _variants = (make_length_variant(_whole, _length, __name__, _record.epochs) for _length in lengths_of(_record))
    for _trainer in (_whole, *_variants):
        globals()[_trainer.__name__] = _trainer
        __all__.append(_trainer.__name__)  # noqa: PYI056
