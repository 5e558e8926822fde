"""What a message must name, whatever its wording: the file, the setting, what was found, the remedy."""

import re

import pytest


def assert_names(message, *facts):
    """Hold that a message names every fact, as it is written.

    Raises:
        AssertionError: says which are missing, and the message.
    """
    missing = [fact for fact in map(str, facts) if fact not in str(message)]
    assert not missing, f"{missing} not named in: {message}"


def naming(*facts):
    """A pattern for `pytest.raises(match=...)` that finds every fact, as it is written and in any order."""
    return r"\A" + "".join(rf"(?=[\s\S]*{re.escape(str(fact))})" for fact in facts)


def raises(error, *facts):
    """`pytest.raises` of that error, whose message names every fact."""
    return pytest.raises(error, match=naming(*facts))
