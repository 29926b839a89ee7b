"""How the fake provider may fail, and the rules that say when; how a failure looks on the wire is the protocol's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from threading import Lock

Predicate = Callable[[str], bool]


class Fault(StrEnum):
    """One way of failing. The number is the HTTP status where that is the point.

    LOST_ANSWER and DONE_BUT_500 do what was asked (the job is created, the file is stored) and only then lose the
    answer; every other failure happens before anything is done, or spoils an answer that did arrive.
    """

    BUSY_503 = "busy_503"
    MAINTENANCE_503 = "maintenance_503"
    ERROR_500 = "error_500"
    BAD_GATEWAY_502 = "bad_gateway_502"
    TIMEOUT_504 = "timeout_504"
    EOF_500 = "eof_500"
    EOF_400 = "eof_400"
    NAN_500 = "nan_500"
    RATE_LIMITED_429 = "rate_limited_429"
    QUOTA_429 = "quota_429"
    UNAUTHORIZED_401 = "unauthorized_401"
    FORBIDDEN_403 = "forbidden_403"
    NO_MODEL_404 = "no_model_404"
    BAD_REQUEST_400 = "bad_request_400"
    TOO_LONG_400 = "too_long_400"
    NAN_400 = "nan_400"
    WRONG_KIND_400 = "wrong_kind_400"
    TOO_LARGE_413 = "too_large_413"
    REDIRECT_302 = "redirect_302"
    HTML_200 = "html_200"
    EMPTY_200 = "empty_200"
    TRUNCATED_JSON = "truncated_json"
    NOT_AN_OBJECT = "not_an_object"
    HUGE_BODY = "huge_body"
    NOT_A_LIST = "not_a_list"
    SHORT_LIST = "short_list"
    EXTRA = "extra"
    WRONG_DIMS = "wrong_dims"
    RAGGED = "ragged"
    NAN = "nan"
    INFINITY = "infinity"
    NULL = "null"
    STRINGS = "strings"
    OVERFLOW = "overflow"
    ZERO_VECTOR = "zero_vector"
    IDENTICAL = "identical"
    CONSTANT = "constant"
    STALL = "stall"
    STALL_MID_BODY = "stall_mid_body"
    SLOW_LOAD = "slow_load"
    RESET = "reset"
    RESET_MID_BODY = "reset_mid_body"
    LOST_ANSWER = "lost_answer"
    DONE_BUT_500 = "done_but_500"
    CHAT_GARBAGE = "chat_garbage"
    CHAT_CUT_JSON = "chat_cut_json"
    CHAT_WRONG_SCHEMA = "chat_wrong_schema"
    CHAT_UNKNOWN_IDS = "chat_unknown_ids"
    CHAT_ENDLESS = "chat_endless"


def same_endpoint(pattern: str, path: str, method: str) -> bool:
    """Return whether a request matches a pattern.

    `/v1/files` is that path and no other; `/v1/files/*/content` is a glob; `:asyncBatchEmbedContent`, without a slash
    in front, is any path that holds it. `POST /v1/batches` is one method only: GET of the same path lists.
    """
    wanted, _, where = pattern.rpartition(" ")
    if wanted and wanted != method:
        return False
    if "*" in where:
        return fnmatchcase(path, where)
    return path == where if where.startswith("/") else where in path


@dataclass
class Rule:
    """Fail requests to `endpoint` (None: those that embed or chat) whose texts match, `left` times (None: for ever).

    How an endpoint is written says `same_endpoint`. A request that only creates, polls or downloads a batch neither
    embeds nor chats: name its endpoint. `seconds` is how long a stall or a slow load lasts, `retry_after` the header of
    a 429 as it is sent.
    """

    fault: Fault
    left: int | None = None
    matches: Predicate | None = None
    endpoint: str | None = None
    seconds: float = 3600.0
    retry_after: str | None = "7"

    def applies(self, endpoint: str, works: bool, texts: Sequence[str], method: str) -> bool:
        """Return whether this rule applies to that request."""
        if self.left == 0 or not (same_endpoint(self.endpoint, endpoint, method) if self.endpoint else works):
            return False
        return self.matches is None or any(self.matches(text) for text in texts)


class FaultQueue:
    """The rules in the order they were given; the first that applies is used. Safe to change from another thread."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = Lock()

    def add(self, rule: Rule) -> None:
        """Put a rule at the end of the queue."""
        with self._lock:
            self._rules.append(rule)

    def clear(self) -> None:
        """Forget every rule."""
        with self._lock:
            self._rules.clear()

    def take(self, endpoint: str, works: bool, texts: Sequence[str], method: str = "POST") -> Rule | None:
        """Return the rule for this request, and count one use of it."""
        with self._lock:
            rule = next((rule for rule in self._rules if rule.applies(endpoint, works, texts, method)), None)
            if rule is not None and rule.left is not None:
                rule.left -= 1
            return rule
