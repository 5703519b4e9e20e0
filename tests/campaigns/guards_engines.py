"""The guards of the engines and of the turns that jobs take, for guards.py."""

from __future__ import annotations

from guard import Guard

_DEATHS = "unit/daemon/test_dispatcher_deaths.py"
_STORAGE = "unit/daemon/test_dispatcher_storage.py"
_RESIDENT = "unit/daemon/test_worker_process.py"
_ENDS = "unit/worker/test_pipeline_ends.py"

SUPERVISION = (
    Guard(
        "supervision",
        "an engine without progress is ended (stall_s)",
        "daemon/worker_process.py",
        "return not self._in_hand or clock_s - self._fresh_s <= self.settings.stall_s",
        "return True",
        f"{_RESIDENT}::test_only_a_process_without_progress_is_ended",
    ),
    Guard(
        "supervision",
        "so is one that loads too long",
        "daemon/worker_process.py",
        "return clock_s - self._fresh_s <= self.settings.load_timeout_s",
        "return True",
        f"{_RESIDENT}::test_loading_too_long_is_ended_and_explained",
    ),
    Guard(
        "supervision",
        "a daemon that slept blames no one",
        "daemon/worker_process.py",
        "        if clock_s - self._checked_s > _ASLEEP_S:",
        "        if False:",
        f"{_RESIDENT}::test_a_daemon_that_slept_blames_no_one",
    ),
    Guard(
        "supervision",
        "each start waits longer (backoff)",
        "daemon/worker_process.py",
        "        self._not_before_s = clock_s + pause_s",
        "        self._not_before_s = clock_s",
        f"{_RESIDENT}::test_each_start_waits_twice_as_long_until_a_look_is_done",
    ),
    Guard(
        "supervision",
        "a poison look is set aside after three deaths",
        "daemon/outcomes.py",
        "if deaths >= self.config.engine.max_deaths:",
        "if False:",
        f"{_DEATHS}::test_suspects_are_tried_alone_so_that_the_guilty_one_is_found",
    ),
    Guard(
        "supervision",
        "suspects are tried alone",
        "daemon/outcomes.py",
        "return any(record.deaths > 0 or _look_id(record) in self._suspects for record in records)",
        "return False",
        f"{_DEATHS}::test_suspects_are_tried_alone_so_that_the_guilty_one_is_found",
    ),
    Guard(
        "supervision",
        "no death for a look that was not begun",
        "daemon/outcomes.py",
        "settle = self._count_death if begun else self._try_again",
        "settle = self._count_death",
        f"{_DEATHS}::test_a_look_handed_to_a_process_that_is_just_dying_is_not_to_blame",
    ),
    Guard(
        "supervision",
        "attempts lost with the daemon count",
        "daemon/outcomes.py",
        "elif record.attempts >= max(engine.max_attempts, engine.max_deaths):",
        "elif record.attempts < 0:",
        f"{_DEATHS}::test_a_look_that_takes_the_daemon_down_is_not_tried_for_ever",
    ),
    Guard(
        "supervision",
        "a poisoned context is left",
        "worker/pipeline.py",
        "if _DEVICE_ERROR.search(failure.message):",
        "if False:",
        f"{_ENDS}::test_nothing_more_is_tried_in_a_poisoned_context",
    ),
    Guard(
        "supervision",
        "a process that grows is renewed",
        "worker/pipeline.py",
        "            if self._has_outgrown():",
        "            if False:",
        f"{_ENDS}::test_a_process_above_its_memory_ends_after_its_look_and_not_before",
    ),
    Guard(
        "supervision",
        "a full disk is no look's fault",
        "daemon/dispatcher.py",
        "            case FailureKind.STORAGE:\n",
        "            case FailureKind.STORAGE if False:\n",
        f"{_STORAGE}::test_a_storage_failure_holds_the_queue_until_the_disk_is_well",
    ),
    Guard(
        "supervision",
        "some space is kept free",
        "daemon/disk_guard.py",
        "            if free < min_free_bytes:",
        "            if False:",
        f"{_STORAGE}::test_nothing_is_started_with_too_little_space",
    ),
)
FAIR = (
    Guard(
        "fairness",
        "turns by uploader",
        "storage/fair_queue.py",
        '    db.execute("UPDATE uploaders SET turn = ? WHERE name = (SELECT uploader FROM jobs WHERE id = ?)"',
        '    print("no turn"',
        "unit/storage/test_fair_queue.py::test_another_persons_single_look_is_next_beside_5000",
    ),
    Guard(
        "fairness",
        "turns by job",
        "storage/fair_queue.py",
        '    db.execute("UPDATE jobs SET turn = ? WHERE id = ?", (turn, job_id))',
        "    pass",
        "unit/storage/test_ledger.py::test_turns_go_round_so_a_big_job_starves_nobody",
    ),
    Guard(
        "fairness",
        "priorities",
        "storage/fair_queue.py",
        "    for band in BANDS:",
        "    for band in (tuple(Priority),):",
        "unit/storage/test_fair_queue.py::test_priorities",
    ),
    Guard(
        "fairness",
        "pause",
        "storage/ledger.py",
        "if note_of(db, PAUSED) is not None or not is_any_due(db, now_s):",
        "if not is_any_due(db, now_s):",
        "unit/storage/test_fair_queue.py::test_pause_holds_every_job_and_resume_gives_them_back",
    ),
    Guard(
        "retention",
        "only what is finished is ever kept for a time",
        "storage/retention_marks.py",
        "reported = 1 AND kept_since_s IS NULL AND status IN ('done', 'failed', 'cancelled')",
        "kept_since_s IS NULL",
        "unit/daemon/test_retention.py::test_what_is_not_finished_never_goes",
    ),
    Guard(
        "retention",
        "only what is finished ever leaves",
        "storage/retention_marks.py",
        "AND reported = 1 AND status IN ('done', 'failed', 'cancelled')",
        "",
        "unit/daemon/test_retention.py::test_a_job_that_was_begun_again_never_leaves",
    ),
)
