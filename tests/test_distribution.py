"""Install lines and addresses that messages name."""

import email.message
import importlib.metadata
import json
import re

import pytest

from swin_umamba_nnunet import _distribution
from swin_umamba_nnunet._distribution import install_line, repository
from tests.installed import ROOT


@pytest.fixture
def origin(monkeypatch):
    """A function that sets what pip has recorded about where the package came from."""

    def record(said):
        text = said if said is None else json.dumps(said)
        installed = type("Installed", (), {"read_text": lambda self, name: text if name == "direct_url.json" else None})
        monkeypatch.setattr(importlib.metadata, "distribution", lambda name: installed())

    return record


def test_an_extra_comes_from_where_the_package_came_from(origin, tmp_path):
    clone, wheel = tmp_path / "my clone", tmp_path / "one.whl"
    clone.mkdir()
    wheel.touch()
    origin({"url": clone.as_uri(), "dir_info": {"editable": True}})
    assert install_line("evaluate") == f'pip install -e "{clone}[evaluate]"'
    origin({"url": wheel.as_uri(), "archive_info": {}})
    assert install_line("demo") == f'pip install "{wheel}[demo]"'
    origin({"url": "https://example.org/it.git", "vcs_info": {"vcs": "git", "commit_id": "1"}})
    assert install_line("demo") == 'pip install "swin_umamba_nnunet[demo] @ git+https://example.org/it.git"'
    origin(None)
    assert install_line("demo") == 'pip install "swin_umamba_nnunet[demo]"'


def test_a_clone_that_is_gone_or_that_pip_knows_nothing_of(origin, tmp_path, monkeypatch):
    origin({"url": (tmp_path / "gone").as_uri(), "dir_info": {"editable": True}})
    assert install_line("evaluate").startswith('pip install -e ".[evaluate]"')

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    monkeypatch.setattr(importlib.metadata, "metadata", absent)
    assert "clone" in install_line("evaluate")
    assert repository() is None


def test_the_address_is_the_one_of_the_project_urls(monkeypatch):
    metadata = email.message.Message()
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: metadata)
    assert repository() is None
    metadata["Project-URL"] = "Documentation, https://example.org/docs"
    metadata["Project-URL"] = "Repository, https://example.org/it"
    assert repository() == "https://example.org/it"


def test_install_lines_name_no_index_and_extras_that_exist():
    """No index has the package yet; `install_line` alone says so where pip had it from one nevertheless."""
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.optional-dependencies]")[1]
    extras = set(re.findall(r"^([a-z-]+) = \[", declared.split("\n[")[0], re.MULTILINE))
    package = ROOT / _distribution.NAME
    for path in (*ROOT.glob("*.md"), *package.rglob("*.md"), *package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert path.stem == "_distribution" or f'pip install "{_distribution.NAME}[' not in text, path
        named = re.findall(r'(?:install_line\(|pip install (?:-e )?)"(?:\.\[)?([a-z,-]+)\]?"', text)
        assert set(",".join(named).split(",")) <= {*extras, ""}, path
