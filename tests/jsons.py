"""JSON files that tests read, write and change."""

import json


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def dump(path, content):
    path.write_text(json.dumps(content))


def edit(path, change):
    """Let a function change what the file holds."""
    content = load(path)
    change(content)
    dump(path, content)
