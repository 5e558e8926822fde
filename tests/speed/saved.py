"""What autograd keeps between forward and backward, counted in bytes without computing anything.

A forward pass runs on torch's fake tensors at one image and at two; the difference is what an image costs, without
the parameters and their half-precision copies.  Every block of memory counts once, however many views are kept of it.
The shapes and dtypes are the device's own, so the figure holds for it; no GPU is needed for those of a GPU's, except
that the norm and gate fused behind the scan (backend `triton`) are only there with it.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.speed.materialised import ShapesOfExtension, core, mamba_ssm_2d
from tests.speed.record import BLOCK, CORE, FUSED, MAMBA_SSM, OWN, SAVED, Figure
from tests.speed.scans import STAGES, STATES, Stage, core_weights
from tests.speed.targets import BLOCKS

PIPELINES = (FUSED, OWN, MAMBA_SSM)


def saved_figures(device: str, stage: Stage) -> list[Figure]:
    """What SS2D's core and a whole SS2D block keep for backward, in each pipeline.

    Args:
        device: whose backends and autocast; nothing is allocated on it.
        stage: batch, size and dtype.
    """
    figures = []
    for what, keep in ((CORE, _core), (BLOCK, _block)):
        for pipeline in PIPELINES:
            one, two = (saved_bytes(partial(keep, device, stage, pipeline, batch)) for batch in (1, 2))
            kept = stage.batch * (two - one) / 2**20
            figures.append(stage.figure(what, pipeline, SAVED, saved_mebibytes=kept))
    return figures


def saved_bytes(forward: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps after `forward`, everything it is given included."""
    storages: dict[int, tuple[int, torch.UntypedStorage]] = {}  # kept, so that no address comes up twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = (storage.nbytes(), storage)
        return tensor

    with FakeTensorMode(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(size for size, _ in storages.values())


def _core(device: str, stage: Stage, pipeline: str, batch: int) -> Tensor:
    x = torch.empty(batch, stage.height, stage.width, stage.channels, dtype=stage.dtype, device=device)
    weights = [weight.to(device).requires_grad_() for weight in core_weights(stage.channels)]
    function = partial(mamba_ssm_2d, extension=ShapesOfExtension()) if pipeline == MAMBA_SSM else core(pipeline)
    with stage.autocast(device):
        return function(x.requires_grad_(), *weights, out_dtype=torch.float32)


def _block(device: str, stage: Stage, pipeline: str, batch: int) -> Tensor:
    from swin_umamba_nnunet.blocks import SS2D

    scan = None if pipeline == FUSED else core(pipeline)
    if pipeline == MAMBA_SSM:
        scan = partial(mamba_ssm_2d, extension=ShapesOfExtension())
    with torch.device(device):
        block = SS2D(stage.channels // 2, d_state=STATES, scan=scan)
    x = torch.empty(batch, stage.height, stage.width, stage.channels // 2, device=device)
    with stage.autocast(device):
        return block(x.requires_grad_())


def main() -> None:
    """Print what the SS2D blocks of dagger keep together at batch 12, 320x320, float16 autocast.

    python -m tests.speed.saved
    """
    total = {(what, pipeline): 0.0 for what in (CORE, BLOCK) for pipeline in PIPELINES}
    for stride, channels in STAGES:
        for figure in saved_figures("cpu", Stage(12, (320, 320), stride, channels, torch.float16)):
            total[figure.what, figure.pipeline] += BLOCKS["SwinUMambaD"][channels] * (figure.saved_mebibytes or 0.0)
    for (what, pipeline), mebibytes in total.items():
        share = mebibytes / total[what, MAMBA_SSM]
        print(f"{what:12s} {pipeline:12s} {mebibytes:6.0f} MiB, {share:.2f} of {MAMBA_SSM}'s")  # noqa: T201


if __name__ == "__main__":
    main()
