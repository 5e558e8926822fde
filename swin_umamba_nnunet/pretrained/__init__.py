"""From a checkpoint's name to weights in an encoder.

    report = load_imagenet_weights(network)                 # finds or downloads what the network's encoder needs
    checkpoint = ensure_weights("swin_umamba")              # the same search and checks, before any work starts
    report = load_imagenet_weights(network, checkpoint)     # ... and what was read goes into the network
    ours = remap_authors_state_dict("swin_umamba", theirs)  # the authors' segmentation checkpoints

Names are imported when first used: the registry serves the command line without torch.
"""

import importlib

# a module -> what is public of it
_HOMES = {
    "registry": (
        "RECORDS",
        "WEIGHTS_OF_NETWORK",
        "CheckpointError",
        "DownloadError",
        "Variant",
        "WeightsError",
        "WeightsNotFoundError",
        "WeightsRecord",
        "get_record",
    ),
    "locate": ("ENVIRONMENT_VARIABLE", "cache_folder", "ensure_weights", "find_weights"),
    "adapt": ("adapt_input_convolution",),
    "variants": ("identify", "remap_vmamba_state_dict"),
    "checkpoint": ("Checkpoint", "read_checkpoint"),
    "authors": ("remap_authors_state_dict",),
    "load": ("LoadReport", "load_imagenet_weights"),
    "download": ("download_weights",),
}

__all__ = sorted(name for names in _HOMES.values() for name in names)


def __getattr__(name: str):
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
