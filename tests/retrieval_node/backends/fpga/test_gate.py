"""Many inside at once, or one alone."""

from __future__ import annotations

import threading
import time

from retrieval_node.backends.fpga.gate import Gate


def test_one_alone_waits_for_those_inside_and_goes_before_those_who_come_later() -> None:
    gate, seen = Gate(), list[str]()
    entered, leave, asked = threading.Event(), threading.Event(), threading.Event()

    def inside() -> None:
        with gate.shared():
            entered.set()
            assert leave.wait(30)
            seen.append("first")

    def alone() -> None:
        asked.set()
        with gate.alone():
            seen.append("alone")

    def later() -> None:
        with gate.shared():
            seen.append("later")

    threads = [threading.Thread(target=work) for work in (inside, alone, later)]
    threads[0].start()
    assert entered.wait(30)
    threads[1].start()
    assert asked.wait(30)
    ends = time.monotonic() + 30
    while not gate._wanted_alone:
        assert time.monotonic() < ends
        time.sleep(1e-3)
    threads[2].start()
    time.sleep(0.02)
    assert seen == []
    leave.set()
    for thread in threads:
        thread.join(30)
    assert seen == ["first", "alone", "later"]


def test_many_are_inside_at_once_and_an_error_lets_go() -> None:
    gate = Gate()
    with gate.shared(), gate.shared():
        pass
    for way in (gate.shared, gate.alone):
        try:
            with way():
                raise KeyError
        except KeyError:
            pass
    with gate.alone():
        pass
