"""Errors that reach people: what happened, and the remedy.

Every error that crosses a room is a `SwarmError`. `proto/codec/errors.py` carries it over gRPC (status,
code, remedy) and makes the same class again on the other side, so that the command line can print both.

    SwarmError
      InvalidArgument      the request can never work as it is            exit 1
        InvalidReference   a malformed image reference
        InvalidStackFile   with file and line
      NotFound             no such service, node, task, image, container
      AlreadyExists        a name or port that is taken
      OutOfSequence        the object changed since the caller read it
      FailedPrecondition   right request, wrong moment or place
        NotLeader          this manager does not lead (`leader` names who does, if known)
          HandedOnAstray   nor does the manager that it handed the call on to: nothing was done
        NotAManager
        NodeRemoved        this node was removed from the cluster, or the one that was asked about
        Locked             what opens this manager's state is wrapped, and its unlock key was not given
      Unavailable          no quorum, unreachable, shutting down: may work later
        NoLeader           nothing was done
        Unreachable        the peer did not answer at all
      OutcomeUnknown       a write may or may not have been committed
      PermissionDenied     the certificate's role does not allow it
        JoinTokenInvalid
      ResourceExhausted    disk, memory, ports
      Internal             a fault of ours
"""

from typing import ClassVar


class SwarmError(Exception):
    """`code` is stable and machine-readable; `remedy` is one sentence telling the operator what to do."""

    code: ClassVar[str] = "internal"
    remedy: str = ""

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if remedy is not None:
            self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


class InvalidArgument(SwarmError):
    code = "invalid-argument"


class InvalidReference(InvalidArgument):
    code = "invalid-reference"
    remedy = "An image reference reads [registry[:port]/]name[:tag][@sha256:digest], in lower case."


class InvalidStackFile(InvalidArgument):
    code = "invalid-stack-file"


class NotFound(SwarmError):
    code = "not-found"


class AlreadyExists(SwarmError):
    code = "already-exists"


class OutOfSequence(SwarmError):
    code = "out-of-sequence"
    remedy = "Somebody changed it since you read it: read it again and repeat your change."


class FailedPrecondition(SwarmError):
    code = "failed-precondition"


class VersionTooOld(FailedPrecondition):
    """What happened since that version is not remembered any more."""

    code = "version-too-old"
    remedy = "List again, and watch from the version of that list."


class NotLeader(FailedPrecondition):
    code = "not-leader"
    remedy = "Ask the leader, which `pyswarm node ls` shows."

    def __init__(
        self, message: str = "this manager does not lead", *, leader: str = "", remedy: str | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.leader = leader


class HandedOnAstray(NotLeader):
    code = "handed-on-astray"


class NotAManager(FailedPrecondition):
    code = "not-a-manager"
    remedy = (
        "Run this command on a manager, or make this node one with `pyswarm node promote` there. "
        'If it belongs to no cluster yet: "pyswarm init" or "pyswarm join".'
    )


class NodeRemoved(FailedPrecondition):
    code = "node-removed"
    remedy = "On that machine: `pyswarm leave --force`, then join again."


class Locked(FailedPrecondition):
    code = "locked"
    remedy = "Run `pyswarm unlock` on this node and give the unlock key."


class Unavailable(SwarmError):
    code = "unavailable"


class NoLeader(Unavailable):
    code = "no-leader"
    remedy = "A majority of the managers must run and reach each other; see `pyswarm info`."


class Unreachable(Unavailable):
    """The peer itself could not be asked: nothing reached it, or nothing came back."""

    code = "unreachable"

    was_sent = True
    """Whether the peer may have got the request, and served it: False only when that is certain not to be so."""


class OutcomeUnknown(Unavailable):
    code = "outcome-unknown"
    remedy = "The write may have been committed. Look before you repeat it."


class PermissionDenied(SwarmError):
    code = "permission-denied"


class JoinTokenInvalid(PermissionDenied):
    code = "join-token-invalid"
    remedy = "Run `pyswarm join-token worker` (or `manager`) on a manager and join with what it prints."


class ResourceExhausted(SwarmError):
    code = "resource-exhausted"


class Internal(SwarmError):
    code = "internal"
    remedy = "This is a fault in pyswarm: please report it with the daemon's log."
