"""Case names that nnU-Net and every file system take, from the keys of the files."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from swin_umamba_nnunet.datasets._model import Finding

_SHOWN = 5


def case_name(key: str) -> str:
    """A key as nnU-Net's case identifier: letters (of any script), digits, "-" and "_"."""
    name = re.sub(r"[^\w-]+", "_", unicodedata.normalize("NFC", key)).strip("_")
    return name or "case"


def name_cases(keys: Iterable[tuple[str, str]]) -> tuple[dict[tuple[str, str], str], list[Finding]]:
    """(part, key) -> case name; findings for names that were changed and for those that would collide.

    Names that differ in upper and lower case only collide too: on macOS and Windows they are one file.
    """
    names = {key: case_name(key[1]) for key in keys}
    findings = []
    twice: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for key, name in names.items():
        twice[name.casefold()].append(key)
    for group in twice.values():
        if len(group) < 2:
            continue
        if len({part for part, _ in group}) == len(group):  # the same names in train and in test: told apart by part
            for pair in group:
                names[pair] = f"{pair[0]}_{case_name(pair[1])}"
        else:
            shown = " and ".join(key for _, key in group[:_SHOWN])
            findings.append(
                Finding("error", "several files would become one case; rename them", shown, case_name(group[0][1]))
            )
    changed = [f"{key} -> {names[part, key]}" for part, key in names if names[part, key] != key]
    if changed:
        topic = f"{len(changed)} case names differ from the file names (conversion.json lists all)"
        findings.append(Finding("note", topic, f"for example {changed[0]}"))
    return names, findings
