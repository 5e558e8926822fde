"""One table of the environment variables, and one idea of what is true."""

import re

import pytest

from swin_umamba_nnunet import _autoregister, settings
from tests.installed import ROOT

NAME = "SWIN_UMAMBA_FUSED_GLUE"


def test_the_table_holds_every_variable_that_the_package_reads():
    read = set()
    for path in (ROOT / "swin_umamba_nnunet").rglob("*.py"):
        if path.name != "settings.py":
            read.update(re.findall(r"[\"']SWIN_UMAMBA_[A-Z_]+[\"']", path.read_text(encoding="utf-8")))
    assert {name.strip("\"'") for name in read} == set(settings.MEANINGS)


@pytest.mark.parametrize(("said", "meant"), [("1", True), ("Yes", True), (" on ", True), ("0", False), ("no", False)])
def test_yes_and_no(said, meant, monkeypatch):
    monkeypatch.setenv(NAME, said)
    assert settings.switch(NAME) is settings.switch(NAME, default=not meant) is meant


def test_neither_yes_nor_no(monkeypatch):
    monkeypatch.setenv(NAME, "")
    assert settings.switch(NAME, default=True) is True
    assert settings.switch(NAME) is False
    monkeypatch.setenv(NAME, "maybe")
    with pytest.raises(ValueError, match=f"{NAME} is 'maybe'; set it to 1 or 0"):
        settings.switch(NAME)


@pytest.mark.parametrize(("said", "off"), [("1", True), ("2", True), ("off", False), ("0", False), ("", False)])
def test_the_start_up_line_is_switched_off_by_anything_but_a_no(said, off, monkeypatch):
    monkeypatch.setenv(_autoregister.SWITCH, said)
    assert _autoregister.switched_off() is off
