"""What networks cost: every cell of the published table, fvcore's own count, memory that really is kept."""

import warnings
from math import prod

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from swin_umamba_nnunet.blocks import SS2D
from swin_umamba_nnunet.cost.count import scan_multiply_adds
from swin_umamba_nnunet.cost.network import describe_network, part_of
from swin_umamba_nnunet.cost.tasks import build_network, describe_trainer, task_of_shape
from swin_umamba_nnunet.networks import SwinUMamba
from swin_umamba_nnunet.trainers.finding import find_trainer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it decorates with torch.jit.script, which is deprecated
    from fvcore.nn import FlopCountAnalysis

# FACTS.md section 5: the papers' datasets as (C, H, W) and classes
DATASETS = {"AbdomenMR": ((1, 320, 320), 14), "Endoscopy": ((3, 384, 640), 8), "Microscopy": ((3, 512, 512), 3)}

# Trainer and plans; for each dataset parameters in M, FLOPs in G, and those of its scans where the table has them.
# U-Mamba's and nnU-Net's FLOPs are given without scans, the others' with them.
TABLE = """
nnUNetTrainerSwinUMamba      nnUNetPlans             59.889  68.00 3.92   59.891 163.59 -     59.887 174.37 -
nnUNetTrainerSwinUMambaD     nnUNetPlans             27.498  18.91 6.41   27.496  45.28 -     27.492  48.16 -
nnUNetTrainer                nnUNetPlans             33.49   23.28 0      33.48   55.91 0     46.33   60.10 0
nnUNetTrainer                nnUNetResEncUNetLPlans  105.9   50.8  0      105.9  122.0  0     140.0  130.9  0
nnUNetTrainerUMambaBot       nnUNetPlans             47.53   41.33 -      47.52   99.27 -     64.80  101.76 -
nnUNetTrainerUMambaEnc       nnUNetPlans             47.02   43.45 1.25   47.68  104.70 3.00  64.01  105.71 1.56
nnUNetTrainerUMambaBotPaper  nnUNetPlans             63.34   45.70 -      63.34  109.73 -     86.15  117.84 -
nnUNetTrainerUMambaEncPaper  nnUNetPlans             67.33   49.63 1.86   67.32  119.17 4.46  91.84  128.02 4.76
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]
networks = pytest.mark.parametrize(("trainer", "plans"), [row[:2] for row in ROWS])


def printed(count, unit, like):
    """`count` with as many decimals as the table prints."""
    return f"{count / unit:.{len(like.partition('.')[2])}f}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(row[:2]))
@pytest.mark.parametrize("position", range(3), ids=list(DATASETS))
def test_published_table(row, position):
    (trainer, plans), (parameters, flops, scan) = row[:2], row[2 + 3 * position :][:3]
    cost = describe_trainer(find_trainer(trainer), task_of_shape(*[*DATASETS.values()][position], plans))
    counted = cost.flops if "SwinUMamba" in trainer else cost.dense_flops
    assert printed(cost.parameters, 1e6, parameters) == parameters
    assert printed(counted, 1e9, flops) == flops
    assert scan in ("-", printed(cost.scan_flops, 1e9, scan))


def test_parameters_dense_part_and_scans_of_vm_unet():
    cost = describe_trainer(find_trainer("nnUNetTrainerVMUNet"), task_of_shape((3, 256, 256), 1))
    counts = ((cost.parameters, 1e6), (cost.dense_flops, 1e9), (cost.scan_flops, 1e9), (cost.flops, 1e9))
    assert tuple(printed(*count, ".00") for count in counts) == ("27.43", "5.34", "2.96", "8.31")


def step_sizes(inputs, _outputs):
    """The matrix product inside the operator, which fvcore does not see: one per position and entry of the weight."""
    x, _, dt_weight, *_ = (value.type().sizes() for value in inputs[:3])
    return prod(x[:-1]) * prod(dt_weight)


@networks
def test_dense_flops_are_fvcores(trainer, plans):
    network = build_network(find_trainer(trainer), task_of_shape((2, 64, 64), 3, plans)).to_empty(device="cpu").eval()
    cost = describe_network(network, (2, 64, 64))
    analysis = FlopCountAnalysis(network, torch.zeros(1, 2, 64, 64)).unsupported_ops_warnings(False)
    analysis.uncalled_modules_warnings(False)
    analysis.set_op_handle("swin_umamba::scan_2d", step_sizes)
    analysis.set_op_handle(
        "swin_umamba::scan_2d_norm_gate", lambda inputs, _: step_sizes(inputs, _) + 5 * prod(inputs[0].type().sizes())
    )
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        assert cost.dense_flops == analysis.total()
    assert cost.uncounted == ()
    assert cost.flops == cost.dense_flops + cost.scan_flops
    assert cost.flops == sum(part.dense_flops + part.scan_flops for part in cost.parts)
    assert (cost.scan_flops > 0) == ("Mamba" in trainer)


def test_a_scan_costs_what_the_formula_says():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = SS2D(8, d_state=5)

        def forward(self, x):
            return self.block(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    positions, inner, states, directions = 6 * 7, 16, 5, 4
    channels = inner * directions
    cost = describe_network(Block(), (8, 6, 7))
    assert cost.scan_flops == 9 * positions * channels * states + positions * channels
    assert cost.scan_flops == scan_multiply_adds(positions, channels, states)


def kept_for_backward(network, image):
    """Bytes of what a real forward pass keeps, by address."""
    parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}
    storages = {}

    def keep(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(image)
    assert output is not None
    return sum(storage.nbytes() for address, storage in storages.items() if address not in parameters)


@networks
def test_activation_memory_is_what_is_really_kept(trainer, plans):
    network = build_network(find_trainer(trainer), task_of_shape((2, 64, 64), 3, plans)).to_empty(device="cpu").train()
    cost = describe_network(network, (2, 64, 64), batch_size=2)
    assert cost.activation_bytes == pytest.approx(kept_for_backward(network, torch.zeros(2, 2, 64, 64)), rel=1e-4)


def test_activation_memory_grows_with_the_batch_and_falls_with_recomputation(tiny_network):
    shape = (1, 64, 64)
    one, four = (describe_network(tiny_network(), shape, batch_size).activation_bytes for batch_size in (1, 4))
    recomputed = describe_network(tiny_network(gradient_checkpointing=True), shape, 4)
    assert 3.8 * one < four <= 4 * one  # the step sizes' A = -exp(A_logs) are kept once
    assert 0 < recomputed.activation_bytes < four / 2
    assert recomputed.flops == describe_network(tiny_network(), shape).flops


def test_the_network_is_left_as_it_was(tiny_network):
    network = tiny_network().eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    describe_network(network, (1, 64, 64))
    assert not network.decoder.deep_supervision
    assert not network.training
    assert all(module.backend is None for module in network.modules() if hasattr(module, "backend"))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_backend_set_by_the_user_does_not_change_the_count(tiny_network, monkeypatch):
    expected = describe_network(tiny_network(), (1, 32, 32))
    monkeypatch.setenv("SWIN_UMAMBA_BACKEND", "reference")  # a loop of small operations
    assert describe_network(tiny_network(), (1, 32, 32)) == expected
    assert describe_network(tiny_network(backend="reference"), (1, 32, 32)) == expected


def test_parts_of_swin_umamba():
    cost = describe_network(SwinUMamba(1, 14), (1, 320, 320))
    parts = {part.name: part for part in cost.parts}
    heads = [(48, 320), (96, 160), (192, 80), (384, 40)]  # channels and size of the maps they are on
    assert parts["heads"].parameters == sum(14 * width + 14 for width, _ in heads)
    assert parts["heads"].dense_flops == sum(14 * width * size**2 for width, size in heads)
    assert {name for name, part in parts.items() if part.scan_flops} == {f"encoder stage {i}" for i in (1, 2, 3, 4)}
    assert all(part.activation_bytes > 0 for part in cost.parts)
    assert (parts["decoder stage 1"].channels, parts["decoder stage 1"].size) == (768, (20, 20))


def test_parts_belong_to_stages():
    expected = {
        "encoder.vssm.layers.2.blocks.1.ln_1.weight": "encoder stage 3",
        "encoder.stages.2.0.convs.0.conv": "encoder stage 3",
        "encoder.mamba_layers.2.norm": "encoder stage 3",
        "encoder.stem.0.weight": "stem",
        "encoder.vssm.patch_embed.proj": "patch embedding",
        "encoder.skip_blocks.0.conv1": "skips",
        "encoder.norm": "encoder rest",
        "decoder.stages.0.up": "decoder stage 1",
        "decoder.transpconvs.0.weight": "decoder stage 1",
        "decoder.final_expand.norm": "decoder final step",
        "decoder.seg_layers.0.bias": "heads",
        "backbone.0.conv": "backbone",
        "": "network",
    }
    assert {name: part_of(name) for name in expected} == expected


def test_a_network_of_other_make():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    cost = describe_network(network, (1, 8, 8))
    assert [part.name for part in cost.parts] == ["0", "1", "2"]
    assert [part.dense_flops for part in cost.parts] == [64 * 4 * 9, 64 * 4 * 2, 64 * 4 * 2]
    assert (cost.parameters, cost.classes, cost.head_sizes) == (36 + 8 + 10, 2, ((8, 8),))


def test_an_operation_without_a_formula_is_named():
    class Spectral(nn.Module):
        def forward(self, x):
            return torch.fft.ifft2(torch.fft.fft2(torch.relu(x))).real

    cost = describe_network(Spectral(), (1, 8, 8))
    assert (cost.flops, cost.uncounted) == (0, ("aten._fft_c2c x2",))


def test_a_large_patch_keeps_its_size():
    """Larger than nnU-Net's planner would take for its memory target."""
    assert task_of_shape((1, 1024, 1024), 2).input_shape == (1, 1024, 1024)
    assert task_of_shape((1, 128, 128, 128), 2).configuration == "3d_fullres"
