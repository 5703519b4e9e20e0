"""The note of how the daemon is."""

from __future__ import annotations

import pytest

from fastfit_watch.domain.daemon_state import DaemonCondition, DaemonState

NOW_S = 1000.0
RUNNING = DaemonState(DaemonCondition.RUNNING, 7, NOW_S, "cpu ready (mini)", "events")
STOPPED = DaemonState(DaemonCondition.STOPPED, 7, NOW_S)


@pytest.mark.parametrize("state", [RUNNING, STOPPED])
def test_a_note_is_read_as_it_was_written(state: DaemonState) -> None:
    assert DaemonState.from_json(state.to_json(), NOW_S + 59) == state


def test_a_daemon_without_a_sign_of_life_is_lost_and_one_that_stopped_is_not() -> None:
    assert DaemonState.from_json(RUNNING.to_json(), NOW_S + 61).state is DaemonCondition.LOST
    assert DaemonState.from_json(STOPPED.to_json(), NOW_S + 10**6) == STOPPED


@pytest.mark.parametrize("note", [None, ""])
def test_without_a_note_there_never_was_one(note: str | None) -> None:
    assert DaemonState.from_json(note, NOW_S) == DaemonState(DaemonCondition.NEVER)


def test_the_notes_of_0_1_0_are_read() -> None:
    running = '{"state": "running", "pid": 7, "heartbeat_s": 1000.0, "engine": "cpu ready (mini)", "watch": "events"}'
    assert DaemonState.from_json(running, NOW_S) == RUNNING
    assert DaemonState.from_json('{"state": "stopped", "pid": 7, "heartbeat_s": 1000.0}', NOW_S) == STOPPED
