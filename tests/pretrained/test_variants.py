"""Which VMamba keys and shapes belong to, in both spellings, and what is said of those that are none."""

import math

import pytest

from swin_umamba_nnunet.pretrained import CheckpointError, get_record, identify, remap_vmamba_state_dict
from swin_umamba_nnunet.pretrained.registry import RECORDS, Variant
from swin_umamba_nnunet.pretrained.variants import check_inventory, inventory
from tests import golden
from tests.messages import raises

TINY, TINY_V2 = get_record("vmamba_tiny_v0"), get_record("vmamba_tiny_v2")
GOLDEN = ("vmamba_tiny_v0", "vmamba_small_v0", "vmamba_tiny_v2", "vmamba_small_v2")
LINEAR = ("op.in_proj.weight", "op.out_proj.weight", "mlp.fc1.weight", "mlp.fc2.weight")
# What VMamba's first release calls what its later code calls so, written independently of the module under test.
LATER_NAMES = {
    "patch_embed.proj": "patch_embed.0",
    "patch_embed.norm": "patch_embed.2",
    "ln_1": "norm",
    "self_attention": "op",
    "downsample.norm": "downsample.1",
    "downsample.reduction": "downsample.2",
}


def in_the_other_spelling(record, state_dict):
    """A first checkpoint as VMamba's later code saves it, or a later one as the first release would have saved it."""
    renamed = {}
    for key, value in state_dict.items():
        if record.variant.generation == 1:
            key = f"classifier.{key}" if key.startswith(("norm.", "head.")) else key
            for first, later in LATER_NAMES.items():
                key = key.replace(f"{first}.", f"{later}.")
        else:
            key = key.removeprefix("classifier.").replace(".op.", ".self_attention.")
            key = key.replace(".norm.weight", ".ln_1.weight").replace(".norm.bias", ".ln_1.bias")
        renamed[key] = value
    return renamed


every_record = pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_inventory_is_the_published_one(name):
    assert inventory(get_record(name)) == golden.shapes(name)


@every_record
def test_the_inventory_has_the_published_number_of_parameters(record):
    parameters = sum(math.prod(shape) for shape in inventory(record).values())
    assert round(parameters / 1e6, 3) == record.parameters_million


@every_record
def test_recognised_and_remapped_in_both_spellings(record):
    published = inventory(record)
    other = in_the_other_spelling(record, published)
    assert len(set(other) & set(published)) < len(published) / 2
    assert identify(published).record is identify(other).record is record
    for shapes in (published, other):
        assert list(remap_vmamba_state_dict(shapes).items()) == list(published.items())


@pytest.mark.parametrize(
    ("record", "other", "name"),
    [
        (TINY, "patch_embed.0.weight", "'patch_embed.proj.weight'"),
        (TINY_V2, "layers.0.blocks.0.ln_1.weight", "'layers.0.blocks.0.norm.weight'"),
    ],
)
def test_both_spellings_at_once_are_refused(record, other, name):
    with raises(CheckpointError, name, "twice"):
        remap_vmamba_state_dict(inventory(record) | {other: (96,)})


def test_all_variants_differ_and_an_unpublished_one_is_described():
    assert len({record.variant for record in RECORDS}) == len(RECORDS)
    variant = Variant((1, 1), 32, 2, 8, 1)
    assert variant.record is None
    assert str(variant) == "a VMamba nobody published (depths 1,1, width 32, expand 2, d_state 8, generation 1)"


@pytest.mark.parametrize(
    ("shapes", "facts"),
    [
        ({}, ("no VMamba", "none")),
        ({f"conv{i}.weight": (1,) for i in range(9)}, ("no VMamba", "conv0.weight", " 5 more")),
        ({"vmunet.layers.0.blocks.0.self_attention.A_logs": (768, 16)}, ("whole network", "'vmunet.'")),
        ({"layers.0.blocks.0.self_attention.A_logs": (768, 16)}, ("first VMamba block", "out_proj.weight")),
    ],
)
def test_what_is_no_vmamba_is_said_to_be_none(shapes, facts):
    with raises(CheckpointError, *facts):
        identify(shapes)


@pytest.mark.parametrize(
    ("record", "change", "told"),
    [
        (TINY, {"layers.3.blocks.1.ln_1.bias": None}, "1 missing: layers.3.blocks.1.ln_1.bias"),
        (TINY, {"layers.4.extra": (1,)}, "1 unexpected: layers.4.extra"),
        (TINY, {"head.bias": (21,)}, "1 of another shape: head.bias (21,) instead of (1000,)"),
        (TINY, {"patch_embed.proj.weight": (96, 1, 4, 4)}, "1 of another shape"),
        (TINY_V2, {"layers.3.blocks.1.norm2.bias": None}, "1 missing: layers.3.blocks.1.norm2.bias"),
        (TINY_V2, {"layers.0.blocks.0.op.conv2d.bias": (96,)}, "1 unexpected: layers.0.blocks.0.op.conv2d.bias"),
        (TINY_V2, {"layers.0.downsample.1.weight": (192, 96, 2, 2)}, "of another shape: layers.0.downsample.1.weight"),
        (TINY_V2, {"classifier.head.bias": None}, "1 missing: classifier.head.bias"),
    ],
)
def test_the_inventory_check_names_every_difference(record, change, told):
    shapes = {key: shape for key, shape in (inventory(record) | change).items() if shape is not None}
    with raises(CheckpointError, told):
        check_inventory(shapes, record)


@pytest.mark.parametrize(("record", "prefix", "count"), [(TINY, "", 208), (TINY_V2, "classifier.", 272)])
def test_without_the_classifier_its_keys_may_be_anything(record, prefix, count):
    shapes = inventory(record)
    encoder = {key: shape for key, shape in shapes.items() if not key.startswith((f"{prefix}norm.", f"{prefix}head."))}
    assert len(encoder) == count
    for found in (shapes, encoder, shapes | {f"{prefix}head.weight": (5, 768), f"{prefix}head.bias": (5,)}):
        check_inventory(found, record, classifier=False)
    with raises(CheckpointError, f"4 missing: {prefix}norm.weight"):
        check_inventory(encoder, record)
