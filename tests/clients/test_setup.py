"""How a session is set up, in the words of a command line."""

import pytest

from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.cli.setup import wish
from moorage_protocol.config import ConfigShown


def test_value_that_cannot_be_read_is_refused_with_what_can_be() -> None:
    shown = ConfigShown(name="", workspace="/", storage="memory", parent=None, labels={})

    with pytest.raises(Failure) as refused:
        wish([("auto_compact", "maybe")], shown)

    assert refused.value.code == Exit.USAGE
    assert refused.value.problem == "auto_compact=maybe: that is neither a switch nor JSON."
    assert "on or off" in refused.value.hint
