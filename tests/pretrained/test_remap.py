import pytest

from swin_umamba_nnunet.pretrained import CheckpointError, get_record, identify, remap_vmamba_state_dict
from swin_umamba_nnunet.pretrained.registry import RECORDS
from swin_umamba_nnunet.pretrained.variants import Variant, check_inventory, inventory, variant_of

FIRST_GENERATION = [record for record in RECORDS if record.generation == 1]


def later_spelling(state_dict):
    """The same checkpoint as VMamba's later code saves it, written independently of the module under test."""
    names = {
        "patch_embed.proj": "patch_embed.0",
        "patch_embed.norm": "patch_embed.2",
        "ln_1": "norm",
        "self_attention": "op",
        "downsample.norm": "downsample.1",
        "downsample.reduction": "downsample.2",
    }
    renamed = {}
    for key, value in state_dict.items():
        if key.startswith(("norm.", "head.")):
            key = f"classifier.{key}"
        for ours, theirs in names.items():
            key = key.replace(f"{ours}.", f"{theirs}.")
        renamed[key] = value
    return renamed


@pytest.mark.parametrize("record", FIRST_GENERATION, ids=lambda record: record.name)
def test_both_spellings_become_the_first(record):
    shapes = inventory(record)
    later = later_spelling(shapes)
    assert not set(shapes) & set(later)
    assert remap_vmamba_state_dict(later) == shapes
    assert remap_vmamba_state_dict(shapes) == shapes
    assert list(remap_vmamba_state_dict(later)) == list(shapes)


def test_both_spellings_at_once_are_refused():
    with pytest.raises(CheckpointError, match=r"'patch_embed.proj.weight' twice"):
        remap_vmamba_state_dict({"patch_embed.proj.weight": (96,), "patch_embed.0.weight": (96,)})


@pytest.mark.parametrize("name", ["vmamba_tiny_v0", "vmamba_small_v0"])
def test_the_inventory_is_the_published_one(name, manifest):
    published = {key: tuple(shape) for key, shape in manifest[name]["state_dict"].items()}
    assert inventory(get_record(name)) == published
    assert list(inventory(get_record(name))) == list(published)


@pytest.mark.parametrize("record", FIRST_GENERATION, ids=lambda record: record.name)
def test_a_variant_is_recognised_in_both_spellings(record):
    for shapes in (inventory(record), later_spelling(inventory(record))):
        assert identify(shapes).record is record


@pytest.mark.parametrize("name", ["vmamba_tiny_v2", "vmamba_small_v2"])
def test_the_second_generation_is_recognised(name, manifest):
    assert identify(manifest[name]["state_dict"]).record is get_record(name)


def test_all_variants_differ():
    assert len({variant_of(record) for record in RECORDS}) == len(RECORDS)


def test_an_unpublished_variant_is_described():
    variant = Variant((1, 1), 32, 2, 8, 1)
    assert variant.record is None
    assert str(variant) == "a VMamba nobody published (depths 1,1, width 32, expand 2, d_state 8, generation 1)"


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, "no VMamba backbone: its keys are none"),
        ({f"conv{i}.weight": (1,) for i in range(9)}, r"no VMamba backbone.*conv0.weight.*and 5 more"),
        ({"vmunet.layers.0.blocks.0.self_attention.A_logs": (768, 16)}, r"whole network.*'vmunet\.'"),
        ({"layers.0.blocks.0.self_attention.A_logs": (768, 16)}, "incomplete or of odd shape"),
    ],
)
def test_what_is_no_vmamba_is_said_to_be_none(shapes, message):
    with pytest.raises(CheckpointError, match=message):
        identify(shapes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers.3.blocks.1.ln_1.bias": None}, r"1 missing: layers\.3\.blocks\.1\.ln_1\.bias"),
        ({"layers.4.extra": (1,)}, r"1 unexpected: layers\.4\.extra"),
        ({"head.bias": (21,)}, r"1 of another shape: head\.bias \(21,\) instead of \(1000,\)"),
        ({"patch_embed.proj.weight": (96, 1, 4, 4)}, "1 of another shape"),
    ],
)
def test_the_inventory_check_names_every_difference(change, message):
    record = get_record("vmamba_tiny_v0")
    shapes = {key: shape for key, shape in (inventory(record) | change).items() if shape is not None}
    with pytest.raises(CheckpointError, match=message):
        check_inventory(shapes, record)


def test_without_the_classifier_its_keys_may_be_anything():
    record = get_record("vmamba_tiny_v0")
    shapes = inventory(record)
    check_inventory(shapes, record, classifier=False)
    check_inventory(shapes | {"head.weight": (5, 768), "head.bias": (5,)}, record, classifier=False)
    encoder = {key: shape for key, shape in shapes.items() if not key.startswith(("norm.", "head."))}
    assert len(encoder) == 208
    check_inventory(encoder, record, classifier=False)
    with pytest.raises(CheckpointError, match=r"4 missing: norm\.weight"):
        check_inventory(encoder, record)
