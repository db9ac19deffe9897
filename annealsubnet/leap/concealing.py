"""Concealing: the token stays out of every log line, D-Wave's own included.

The cloud client writes its whole configuration, token and all, into its debug log when it is made and whenever it opens a
session. A filter on each of its loggers puts asterisks there, whatever handlers a program has set up.
"""

import logging
from typing import Any

_CONCEALED = "***"


class _Concealing(logging.Filter):
    """Puts asterisks in the place of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true; the record no longer holds a token."""
        message = record.getMessage()
        for token in self.tokens:
            if token in message:
                message = message.replace(token, _CONCEALED)
                record.msg, record.args = message, ()
        return True


_FILTER = _Concealing()


def conceal(token: Any) -> None:
    """Keep a token out of the logs of D-Wave's client from now on.

    Args:
        token: as the configuration has it; nothing happens if there is none.
    """
    import dwave.cloud
    import dwave.cloud.api.client
    import dwave.cloud.client.base  # noqa: F401 (its logger exists once it is imported)

    if not token:
        return
    _FILTER.tokens.add(str(token))
    for name in [name for name in logging.root.manager.loggerDict if name == "dwave" or name.startswith("dwave.")]:
        logging.getLogger(name).addFilter(_FILTER)
