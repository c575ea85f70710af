"""The queue of requests: what nobody waits for leaves it, and what is sent again does not."""

import pytest

from streaming_workers.ingest.problems import Problem
from streaming_workers.ingest.submissions import Submission, Submissions


def submission(key: bytes | None = None) -> Submission:
    return Submission("user-events", [], key, b"fingerprint", lambda _outcome: None)


def test_a_request_that_nobody_waits_for_leaves_the_queue() -> None:
    queue = Submissions()
    first, second = submission(b"key"), submission()
    for one in (first, second):
        queue.put(one)
    assert not queue.abandon(first)
    # As if it were the first.
    again = submission(b"key")
    queue.put(again)
    assert queue.take(0) == [second, again]
    assert queue.is_empty


@pytest.mark.parametrize("alone", [True, False])
def test_what_is_put_back_is_sent_if_somebody_waits(*, alone: bool) -> None:
    queue = Submissions()
    sent = [submission(b"a"), submission(b"b"), submission()]
    for one in sent:
        queue.put(one)
    assert queue.take(0) == sent
    # It may be stored, so its key is still taken.
    assert queue.abandon(sent[0])
    with pytest.raises(Problem, match="is being processed"):
        queue.put(submission(b"a"))
    queue.put_back(sent, alone=alone)
    assert not queue.abandon(sent[1])
    assert queue.take(0) == [sent[2]]
    assert queue.is_empty
    for key in (b"a", b"b"):
        queue.put(submission(key))
