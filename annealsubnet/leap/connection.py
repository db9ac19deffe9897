"""Connection: single requests to Leap, and what their failures mean.

What matters about a failed request is whether the service may have carried it out. A job that may have been accepted is paid
for, so it must be looked for, and never be sent again unasked:

    refused now       429, or the connection could not be made: not accepted; try again later
    in doubt          5xx, a connection lost after sending, an answer that can't be read: perhaps accepted
    denied            401, 403: not accepted; the token is wrong
    refused           any other answer from 400 on: not accepted; it never will be

The token stays inside the cloud client's configuration, as a string that shows itself as asterisks; and a filter keeps it out
of that client's own logs (`concealing`).
"""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from annealsubnet.leap.concealing import conceal
from annealsubnet.leap.patience import Patience

_PROBLEM = "application/vnd.dwave.sapi.problem+json"
_PROBLEMS = "application/vnd.dwave.sapi.problems+json"
ENDED = {"COMPLETED", "FAILED", "CANCELLED"}


class LeapError(ValueError):
    """Leap could not do what was asked; the message says what was found and what to do."""


class Later(Exception):
    """Not carried out; it may be tried again."""


class InDoubt(Exception):
    """Perhaps carried out."""


class Denied(LeapError):
    """The token was not accepted."""


class Refused(LeapError):
    """Not carried out, and it never will be."""


class _Token(str):
    """A token that shows itself as asterisks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True)
class Submission:
    """What the service said of one job that was sent.

    Attributes:
        problem_id: under which it was accepted; None if it was not.
        code: of the refusal.
        message: of the refusal.
    """

    problem_id: str | None
    code: int = 0
    message: str = ""


class Connection:
    """Requests to one endpoint of Leap, each tried as often as patience allows where that is safe.

    Args:
        config: of the cloud client, with endpoint and token.
        patience: of requests that may be repeated.
    """

    def __init__(self, config: Any, *, patience: Patience | None = None) -> None:
        conceal(config.token)
        self._config = config.model_copy(deep=True)
        self._config.token = _Token(config.token)
        self.patience = patience or Patience()
        self._local = threading.local()
        self._opened: list[Any] = []

    def __repr__(self) -> str:
        return f"Connection({self.endpoint})"

    @classmethod
    def open(cls, solver: Any = None, *, profile: str | None = None, patience: Patience | None = None) -> "Connection":
        """A connection with the credentials of a solver's client, or of the user's configuration.

        Args:
            solver: a `DWaveSampler`, a solver of the cloud client, or a client; the configuration file and environment
                variables (DWAVE_API_TOKEN and the like) are read if it is none of these.
            profile: of the configuration file.
            patience: of requests that may be repeated.

        Raises:
            LeapError: if no token is configured.
        """
        client = getattr(solver, "client", solver)
        config = getattr(client, "config", None)
        if config is None or not hasattr(config, "request_timeout"):
            config = configured(profile)
        if not config.token:
            raise LeapError(
                "there is no token for D-Wave Leap; set DWAVE_API_TOKEN, or store one with the command `dwave config create`."
            )
        return cls(config, patience=patience)

    @property
    def endpoint(self) -> str:
        """Where requests go."""
        return str(self._config.endpoint)

    def close(self) -> None:
        """Close all sockets."""
        for resource in self._opened:
            resource.close()
        self._opened.clear()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def submit(self, bodies: Sequence[Mapping[str, Any]]) -> list[Submission]:
        """Send jobs in one request, once.

        Raises:
            Later: none was accepted.
            InDoubt: any of them may have been.
            Denied, Refused: none was, and none will be.
        """
        content = json.dumps(list(bodies)).encode()
        answer = self._request("problems", "post", "", _PROBLEMS, data=content, headers={"Content-Type": "application/json"})
        if not isinstance(answer, list) or len(answer) != len(bodies):
            raise InDoubt("the answer is not one entry for each job sent")
        return [
            Submission(str(entry["id"]))
            if "id" in entry
            else Submission(None, int(entry["error_code"]), str(entry["error_msg"]))
            for entry in answer
        ]

    def find(self, label: str) -> list[str]:
        """Ids of the jobs with a label, tried again as patience allows."""
        found = self._patiently("problems", "get", "", _PROBLEMS, params={"label": label, "max_results": 10})
        return [str(entry["id"]) for entry in found if entry.get("label") == label]

    def ended(self, ids: Sequence[str], *, timeout: int) -> list[str]:
        """Ids of those jobs that have ended; waits up to `timeout` seconds for one of them to."""
        params = {"id": ",".join(ids), "timeout": timeout}
        found = self._patiently("problems", "get", "", _PROBLEMS, params=params)
        # An entry without a status says that the service does not know the job; asking for the answer will tell.
        pairs = zip(ids, found, strict=False)
        return [problem_id for problem_id, entry in pairs if "status" not in entry or entry["status"] in ENDED]

    def answer(self, problem_id: str) -> bytes:
        """One job with its answer, as the service sent it; once.

        Raises:
            Later, InDoubt, Denied, Refused: it could not be had.
        """
        return self._raw("problems", "get", problem_id, _PROBLEM)

    def solver(self, name: str) -> dict[str, Any]:
        """The description of a solver as it is now.

        Raises:
            LeapError: there is no such solver.
        """
        try:
            media = "application/vnd.dwave.sapi.solver-definition+json"
            return dict(self._patiently("solvers", "get", f"remote/{name}", media))
        except Refused as error:
            raise LeapError(f"the solver {name} is not there: {error}") from None

    def _patiently(self, resource: str, method: str, path: str, media: str, **arguments: Any) -> Any:
        """A request that changes nothing and so may be repeated."""
        for failures in range(1, self.patience.attempts + 1):
            try:
                return self._request(resource, method, path, media, **arguments)
            except (Later, InDoubt, Denied) as error:
                if failures == self.patience.attempts or (isinstance(error, Denied) and failures >= DENIALS):
                    if isinstance(error, Denied):
                        raise
                    raise LeapError(
                        f"Leap at {self.endpoint} did not answer {failures} times in a row (last: {error}); nothing is lost, "
                        "resume the ledger later."
                    ) from None
                self.patience.wait(failures)
        raise AssertionError("unreachable")

    def _request(self, resource: str, method: str, path: str, media: str, **arguments: Any) -> Any:
        content = self._raw(resource, method, path, media, **arguments)
        try:
            return json.loads(content)
        except ValueError:
            raise InDoubt("the answer is cut off") from None

    def _raw(self, resource: str, method: str, path: str, media: str, **arguments: Any) -> bytes:
        """The body of the answer; every failure as one of this module's exceptions, without the request that it was."""
        session = self._session(resource)
        session.set_accept(media_type=media, accept_version="~=3.0", ask_version="3.0.0")
        failure: Exception
        try:
            return bytes(getattr(session, method)(path, **arguments).content)
        except Exception as error:
            failure = self._meaning(error)
        finally:
            session.unset_accept()
        raise failure

    def _session(self, resource: str) -> Any:
        """This thread's own session, for sessions are not to be shared."""
        from dwave.cloud import api

        found = getattr(self._local, resource, None)
        if found is None:
            kind = api.Problems if resource == "problems" else api.Solvers
            found = kind.from_config(self._config, retry={"total": 0}, cache={"enabled": False, "home": None})
            setattr(self._local, resource, found)
            self._opened.append(found)
        return found.session

    def _meaning(self, error: Exception) -> Exception:
        """What a failure of the client means for the caller."""
        import requests
        import urllib3
        from dwave.cloud.api import exceptions

        text = str(error).replace(str(self._config.token), "***")
        if isinstance(error, exceptions.ResourceAuthenticationError | exceptions.ResourceAccessForbiddenError):
            return Denied(f"Leap at {self.endpoint} does not accept the token ({text}); check DWAVE_API_TOKEN or the profile.")
        if isinstance(error, exceptions.ResourceLimitsExceededError):
            return Later(text)
        if isinstance(error, exceptions.InternalServerError):
            return InDoubt(f"error {error.error_code}: {text}")
        if isinstance(error, exceptions.ResourceBadResponseError | exceptions.RequestTimeout):
            return InDoubt(text)
        if isinstance(error, exceptions.RequestError):
            return Refused(text)
        if isinstance(error, requests.ConnectionError):
            reason = getattr(error.args[0] if error.args else None, "reason", None)
            if isinstance(reason, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError):
                return Later(f"no connection to {self.endpoint}")
            return InDoubt("the connection was lost")
        if isinstance(error, requests.RequestException):
            return InDoubt(f"{type(error).__name__}: {text}")
        return error


DENIALS = 3
"""A token that was refused this often is wrong; fewer may be a fault of the service."""


def configured(profile: str | None = None) -> Any:
    """The user's own configuration of the cloud client, from its file and the environment.

    Raises:
        LeapError: it can't be read.
    """
    from dwave.cloud import config
    from dwave.cloud.config.exceptions import ConfigFileError
    from dwave.cloud.regions import resolve_endpoints

    try:
        found = config.validate_config_v1(config.load_config(profile=profile))
    except (ConfigFileError, ValueError) as error:
        raise LeapError(
            f"the configuration of D-Wave's client can't be read: {error}; check it with `dwave config inspect`."
        ) from None
    return resolve_endpoints(found, inplace=True)
