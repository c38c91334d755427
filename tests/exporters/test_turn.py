from __future__ import annotations

import _thread
import sys

from otelgw_exporters.turn import offer_turn


def test_a_turn_is_for_other_processes_and_not_for_a_thread_that_wants_the_interpreters_lock() -> None:
    ran: list[str] = []
    over = _thread.allocate_lock()
    over.acquire()

    def run() -> None:
        ran.append("the other thread")
        over.release()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(60.0)  # from now on the lock changes hands only where somebody lets go of it
    try:
        _thread.start_new_thread(run, ())
        for _ in range(1000):
            offer_turn()
        assert ran == []
        over.acquire()
    finally:
        sys.setswitchinterval(interval)
    assert ran == ["the other thread"]
