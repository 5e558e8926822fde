"""Settings of networks as nnU-Net plans them."""


def planned(patch, widths, strides=None, kernels=None):
    """Settings as nnU-Net plans them: two convolutions everywhere, 3 and 2 on every axis if nothing else is said."""
    stages, axes = len(widths), len(patch)
    return {
        "patch_size": list(patch),
        "n_stages": stages,
        "features_per_stage": list(widths),
        "kernel_sizes": kernels or [[3] * axes] * stages,
        "strides": strides or [[1] * axes] + [[2] * axes] * (stages - 1),
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
    }
