"""The networks that are compared."""

import sys

import pytest
import torch

from swin_umamba_nnunet import networks
from swin_umamba_nnunet.cost.tasks import task_of_shape
from tests.speed.models import MissingPackageError, build_network, planned_stages, scanned


@pytest.mark.parametrize("size", [(320, 320), (256, 256), (64, 64), (128, 128), (512, 512)])
def test_stages_are_those_that_nnunet_plans(size):
    planned = task_of_shape((1, *size), 14).settings.network_arch_init_kwargs
    for name, value in planned_stages(size).items():
        expected = planned[name]
        assert value == (tuple(map(tuple, expected)) if name in ("kernel_sizes", "strides") else expected
                         if name == "n_stages" else tuple(expected)), name  # fmt: skip


# KERNELS.md, section 2: state-steps of an image of 320x320
@pytest.mark.parametrize(("name", "giga_steps"), [("SwinUMamba", 0.433), ("SwinUMambaD", 0.708)])
def test_work_of_the_scans(name, giga_steps):
    with torch.device("meta"):
        steps, elements = scanned(build_network(name, (320, 320)).eval(), (320, 320), "meta")
    assert steps / 1e9 == pytest.approx(giga_steps, abs=5e-4)
    assert steps == 64 * elements


def test_a_u_net_has_no_scan_and_umamba_one_direction():
    with torch.device("meta"):
        assert scanned(build_network("PlainConvUNet", (32, 32)).eval(), (32, 32), "meta") == (0, 0)
        steps, elements = scanned(build_network("UMambaBot", (32, 32)).eval(), (32, 32), "meta")
    assert (steps, elements) == (4 * 4 * 2 * 256 * 16, 0)  # 4x4 positions of 256 channels, expanded twice, 16 states


def test_sizes_that_the_u_net_cannot_halve():
    with pytest.raises(ValueError, match="100 pixels are no multiple of 16"):
        build_network("PlainConvUNet", (100, 96))


@pytest.mark.parametrize("name", ["PlainConvUNet", "UMambaEnc"])
def test_without_nnunets_building_blocks(name, monkeypatch):
    ours = ("swin_umamba_nnunet.networks.umamba", "swin_umamba_nnunet.networks._umamba_parts")
    for module in list(sys.modules):
        if module in ours or module.split(".")[0] == "dynamic_network_architectures":
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr(networks, "umamba", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_Absent(), *sys.meta_path])
    message = f"{name} is made of nnU-Net's building blocks, .* pip install dynamic"
    with pytest.raises(MissingPackageError, match=message):
        build_network(name, (32, 32))


class _Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "dynamic_network_architectures":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
