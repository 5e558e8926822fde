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


def make_trainer(record: TrainerRecord) -> type[NetworkTrainer]:
    """The class that a record describes."""
    network = getattr(networks, record.network)
    attributes = {
        "__doc__": f"{record.summary} ({get_network(record.network).paper}).\n\n{record.notes}".rstrip(),
        "__module__": __name__,
        "network_class": network,
        "network_settings": dict(record.settings),
        "dims": record.dims,
        "enable_deep_supervision": record.deep_supervision,
        "imagenet_weights": record.weights and getattr(network, "imagenet_weights", record.weights),
        "scratch_trainer": record.scratch if record.pretrained else "",
    }
    return type(record.name, (RECIPES.get(record.network, MambaTrainer),), attributes)


def make_length_variant(trainer: type[NetworkTrainer], length: LengthRecord, whole: int) -> type[NetworkTrainer]:
    """The class `trainer` + `length.suffix`.

    Args:
        trainer: of whole length.
        length: which variant.
        whole: epochs of the whole length.
    """
    attributes = {
        "__doc__": f"{trainer.__name__}, {length.summary.format(whole=whole)}.",
        "__module__": __name__,
        "num_epochs": length.epochs,
        "schedule_epochs": whole if length.stops_early else None,
        "scratch_trainer": trainer.scratch_trainer and trainer.scratch_trainer + length.suffix,
        **length.settings,
    }
    return type(trainer.__name__ + length.suffix, (trainer,), attributes)


__all__ = []
for _record in TRAINERS:
    _whole = make_trainer(_record)
    _variants = (make_length_variant(_whole, _length, _record.epochs) for _length in lengths_of(_record))
    for _trainer in (_whole, *_variants):
        globals()[_trainer.__name__] = _trainer
        __all__.append(_trainer.__name__)  # noqa: PYI056
