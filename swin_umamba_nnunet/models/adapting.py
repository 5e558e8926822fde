"""A trained segmentation checkpoint for images with another number of channels, to fine-tune from."""

import os
from dataclasses import dataclass
from pathlib import Path

from swin_umamba_nnunet.models.building import build_on_meta, modern_plans, trainer_called
from swin_umamba_nnunet.models.checkpoints import (
    ModelError,
    channel_names,
    read_segmentation_checkpoint,
    require_fit,
    require_weights,
    write_checkpoint,
)
from swin_umamba_nnunet.pretrained import adapt_input_convolution
from swin_umamba_nnunet.pretrained.variants import shapes_in


@dataclass(frozen=True)
class Adaptation:
    """What was done to a checkpoint.

    Attributes:
        output: file that was written.
        trainer, configuration: of the checkpoint.
        channels: of the images before and after.
        adapted: convolutions that were changed.
    """

    output: Path
    trainer: str
    configuration: str
    channels: tuple[int, int]
    adapted: tuple[str, ...]


def adapt_checkpoint(checkpoint: str | os.PathLike, channels: int, output: str | os.PathLike) -> Adaptation:
    """Write the checkpoint for images of `channels` channels, for nnUNetv2_train's -pretrained_weights.

    nnU-Net accepts such a file only if every tensor outside the heads has the shape of the new network's.  Convolutions
    that see the image are changed as ImageNet weights are (`pretrained.adapt`): a grey image in any number of channels
    gives what it gave before.

    Args:
        checkpoint: checkpoint_*.pth of one of this package's trainers, or of one built on them.
        channels: of the new images, at least 1.
        output: file to write, which must not exist.

    Raises:
        ModelError: an unusable checkpoint, another package's trainer, the second stage of a cascade, no change to make,
            or no place to write.
    """
    source, target = Path(checkpoint), Path(output)
    if channels < 1:
        raise ModelError(f"an image has at least one channel, got {channels}")
    content = read_segmentation_checkpoint(source)
    try:
        trainer, arguments = content["trainer_name"], content["init_args"]
        plans, configuration, dataset_json = (arguments[key] for key in ("plans", "configuration", "dataset_json"))
    except (KeyError, TypeError, IndexError) as error:
        raise ModelError(
            f"{source} does not say how its network was built ({error!r}): it is not from an nnU-Net training; "
            "make a model of released weights first: swin-umamba model import"
        ) from error
    found, plans = trainer_called(trainer, str(source)), modern_plans(plans, str(source))
    network = build_on_meta(found, plans, configuration, dataset_json)
    if stage := plans["configurations"][configuration].get("previous_stage"):
        raise ModelError(
            f"{source} is of {configuration}, which sees the masks of {stage} too, as many as that dataset has labels: "
            f"adapt a checkpoint of {stage}, and train the second stage anew"
        )
    changed_network = build_on_meta(found, plans, configuration, dataset_json, channels)
    old, new = (shapes_in(each.state_dict()) for each in (network, changed_network))
    weights = content["network_weights"]
    require_fit(weights, network, source, dataset_json)
    before = len(channel_names(dataset_json))
    if channels == before:
        raise ModelError(f"{source} is for images of {channels} channels already; use it as it is")
    changed = tuple(key for key in {**old, **new} if old.get(key) != new.get(key))
    adapted = {}
    for key in changed:
        shape = new.get(key, ())
        if min(len(shape), len(old.get(key, ()))) > 1:  # a user's network may have scalars per channel too
            adapted[key] = adapt_input_convolution(weights[key], shape[1])
        if key not in adapted or tuple(adapted[key].shape) != shape:
            raise ModelError(
                f"the network of {trainer} has another form at {channels} channels ({key}), which weights for "
                f"{before} cannot be adapted to"
            )
    require_weights(adapted, changed_network, source)  # sums over channels: float16 may overflow
    write_checkpoint({"network_weights": {**weights, **adapted}, "adapted_from": str(source.absolute())}, target)
    return Adaptation(target, trainer, configuration, (before, channels), changed)
