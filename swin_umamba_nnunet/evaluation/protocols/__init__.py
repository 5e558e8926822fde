"""The conventions an evaluation can follow: the plain one, and one per evaluation script of the papers."""

from collections.abc import Mapping
from typing import Any

from swin_umamba_nnunet.evaluation.protocols.abdomen import Abdomen
from swin_umamba_nnunet.evaluation.protocols.base import EvaluationProtocol, flag_of
from swin_umamba_nnunet.evaluation.protocols.cells import Cells
from swin_umamba_nnunet.evaluation.protocols.endoscopy import Endoscopy
from swin_umamba_nnunet.evaluation.protocols.isic import Isic
from swin_umamba_nnunet.evaluation.protocols.plain import Plain
from swin_umamba_nnunet.evaluation.protocols.synapse import Synapse
from swin_umamba_nnunet.evaluation.records import EvaluationError

_ALL: tuple[type[EvaluationProtocol], ...] = (Plain, Abdomen, Endoscopy, Cells, Isic, Synapse)
PROTOCOLS = {protocol.name: protocol for protocol in _ALL}


def from_options(name: str, options: Mapping[str, Any] | None = None) -> EvaluationProtocol:
    """The protocol of that name with these options, wherever they come from: command line, TOML, JSON.

    Args:
        name: out of `PROTOCOLS`.
        options: name -> value, see the protocol's class; None is its default.

    Raises:
        EvaluationError: no such protocol, an option that it does not have, or a value out of range.
    """
    if name not in PROTOCOLS:
        raise EvaluationError(f"protocol {name}: expected one of {', '.join(PROTOCOLS)}")
    given = {option: value for option, value in (options or {}).items() if value is not None}
    for option in (one for one in given if one not in PROTOCOLS[name].options()):
        having = [protocol for protocol in _ALL if option in protocol.options()]
        if not having:
            has = ", ".join(PROTOCOLS[name].options())
            raise EvaluationError(f"the {name} protocol has no option {option}; it has {has}")
        raise EvaluationError(
            f"the {name} protocol takes no {flag_of(having[0].options()[option])}, that is fixed there; leave it out, "
            f"or use --protocol {' or '.join(protocol.name for protocol in having)}"
        )
    return PROTOCOLS[name](**given)
