"""From a checkpoint's name to weights in an encoder.

    report = load_imagenet_weights(network)                 # finds or downloads what the network's encoder needs
    checkpoint = ensure_weights("swin_umamba")              # the same search and checks, before any work starts
    report = load_imagenet_weights(network, checkpoint)     # ... and what was read goes into the network
    ours = remap_authors_state_dict("swin_umamba", theirs)  # the authors' segmentation checkpoints

Names are imported when first used: the registry serves the command line without torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swin_umamba_nnunet.pretrained.adapt import adapt_input_convolution
    from swin_umamba_nnunet.pretrained.authors import remap_authors_state_dict
    from swin_umamba_nnunet.pretrained.checkpoint import Checkpoint, read_checkpoint
    from swin_umamba_nnunet.pretrained.download import download_weights
    from swin_umamba_nnunet.pretrained.load import LoadReport, load_imagenet_weights
    from swin_umamba_nnunet.pretrained.locate import ENVIRONMENT_VARIABLE, cache_folder, ensure_weights, find_weights
    from swin_umamba_nnunet.pretrained.registry import (
        RECORDS,
        WEIGHTS_OF_NETWORK,
        CheckpointError,
        DownloadError,
        WeightsError,
        WeightsNotFoundError,
        WeightsRecord,
        get_record,
    )
    from swin_umamba_nnunet.pretrained.variants import Variant, identify, remap_vmamba_state_dict

# those that need no torch first, the one that needs filelock last: a bare machine has none
_MODULES = ("registry", "locate", "adapt", "variants", "checkpoint", "authors", "load", "download")

__all__ = [
    "ENVIRONMENT_VARIABLE",
    "RECORDS",
    "WEIGHTS_OF_NETWORK",
    "Checkpoint",
    "CheckpointError",
    "DownloadError",
    "LoadReport",
    "Variant",
    "WeightsError",
    "WeightsNotFoundError",
    "WeightsRecord",
    "adapt_input_convolution",
    "cache_folder",
    "download_weights",
    "ensure_weights",
    "find_weights",
    "get_record",
    "identify",
    "load_imagenet_weights",
    "read_checkpoint",
    "remap_authors_state_dict",
    "remap_vmamba_state_dict",
]


def __getattr__(name: str):
    if name in __all__:
        for module in _MODULES:
            if hasattr(home := importlib.import_module(f"{__name__}.{module}"), name):
                return getattr(home, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
