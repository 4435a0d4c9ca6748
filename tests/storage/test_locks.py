"""A lock has one holder at a time. Processes that hold and wait are in the tests of run folders and of stores."""

import threading

import pytest

from kdzoo.errors import RunFolderError
from kdzoo.storage import locks


def test_a_lock_is_claimed_once_at_a_time(tmp_path):
    """Within one process: a lock belongs to an open file."""
    path = tmp_path / "new" / "a.lock"
    with locks.claim(path) as first, locks.claim(path) as second:
        assert (first, second) == (True, False)
        assert locks.is_held(path)
        with pytest.raises(RunFolderError, match="new is in use by another process"), locks.hold(path):
            pass
    assert not locks.is_held(path)
    with locks.claim(path) as third:
        assert third


def test_a_claim_that_waits_gets_the_lock(tmp_path, capsys):
    path, order, is_claimed = tmp_path / "a.lock", [], threading.Event()

    def holder():
        with locks.claim(path):
            is_claimed.set()
            while "waiting for the tests" not in capsys.readouterr().err:
                pass
            order.append("released")

    thread = threading.Thread(target=holder)
    thread.start()
    is_claimed.wait()
    with locks.claim(path, wait_for="the tests") as claimed:
        order.append(claimed)
    thread.join()
    assert order == ["released", True]
