"""Where this package came from and where it is published: for messages that name a command or an address.

pyproject.toml's `project.urls` is the one place in which the repository's address stands.
"""

import importlib.metadata
import json
import urllib.parse
import urllib.request
from pathlib import Path

NAME = "swin_umamba_nnunet"


def install_line(extra: str) -> str:
    """The command that installs an extra of this package, from where pip had the package itself (PEP 610).

    No package index has this package yet, so its bare name would not do for a clone, a wheel or a repository.
    """
    try:
        recorded = importlib.metadata.distribution(NAME).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:  # on PYTHONPATH
        return _in_a_clone(extra)
    if recorded is None:  # an index: it is published
        return f'pip install "{NAME}[{extra}]"'
    origin = json.loads(recorded)
    address = urllib.parse.urlsplit(origin["url"])
    if address.scheme != "file":
        version_control = f"{origin['vcs_info']['vcs']}+" if "vcs_info" in origin else ""
        return f'pip install "{NAME}[{extra}] @ {version_control}{origin["url"]}"'
    path = Path(urllib.request.url2pathname(address.path))
    if not path.exists():
        return _in_a_clone(extra)
    return f'pip install {"-e " if origin.get("dir_info", {}).get("editable") else ""}"{path}[{extra}]"'


def _in_a_clone(extra: str) -> str:
    return f'pip install -e ".[{extra}]"   in a clone of its repository'


def version_of(name: str) -> str | None:
    """The version of a package as it is installed; None where it is not, or only on PYTHONPATH."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def repository() -> str | None:
    """The address of the repository, None as long as `project.urls` names none."""
    try:
        urls = importlib.metadata.metadata(NAME).get_all("Project-URL") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    named = {label.lower(): address for label, address in (url.split(", ", 1) for url in urls)}
    return named.get("repository")
