from pathlib import Path

import pytest

from swin_umamba_nnunet import pretrained
from swin_umamba_nnunet.pretrained.registry import RECORDS, WEIGHTS_OF_NETWORK, get_record
from tests.messages import raises

PAGE = Path(pretrained.__file__).parents[1] / "docs" / "weights.md"


def test_names_and_files_are_unique_and_urls_end_in_the_file():
    names = [record.name for record in RECORDS]
    files = [name for record in RECORDS for name in record.file_names]
    assert len(set(names)) == len(names) == 6
    assert len(set(files)) == len(files)
    for record in RECORDS:
        assert all(url.startswith("https://") and url.endswith("/" + record.file_name) for url in record.urls)
        assert record.sha256 is None or (len(record.sha256) == 64 and record.sha256 == record.sha256.lower())
        assert record.sha256 is not None or not record.sha256_confirmed


def test_a_network_name_leads_to_its_weights():
    assert {network: get_record(network).name for network in WEIGHTS_OF_NETWORK} == WEIGHTS_OF_NETWORK
    assert get_record("swin_umamba") is get_record("vmamba_tiny_v0")


def test_an_unknown_name_lists_the_known_ones():
    with raises(ValueError, "'vmamba_huge'", "vmamba_tiny_v0", "swin_umamba_d"):
        get_record("vmamba_huge")


def test_every_public_name_is_there():
    assert dir(pretrained) == sorted(pretrained.__all__)
    assert all(getattr(pretrained, name) is not None for name in pretrained.__all__)
    with raises(AttributeError, "no attribute 'nonsense'"):
        getattr(pretrained, "nonsense")  # noqa: B009


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_the_page_on_weights_says_what_the_registry_says(record):
    line = next(line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{record.name}`"))
    assert f"({record.url})" in line
    assert all(f"`{name}`" in line for name in record.file_names)
    assert ("unknown" if record.size_bytes is None else f"{record.size_bytes:,}") in line
    assert ("unknown" if record.sha256 is None else record.sha256) in line
    assert ("unconfirmed" in line) == (record.sha256 is not None and not record.sha256_confirmed)
