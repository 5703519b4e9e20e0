"""The guards of what must be durable, for guards.py."""

from __future__ import annotations

from guard import Guard

_SPOOL = "unit/intake/test_claim.py"
_DISPATCH = "unit/daemon/test_dispatcher.py"
_DEATHS = "unit/daemon/test_dispatcher_deaths.py"
_STORAGE = "unit/daemon/test_dispatcher_storage.py"
_DURABILITY = "integration/test_durability.py"

CRASH = (
    Guard(
        "crash",
        "a file is synced before it gets its name",
        "system/atomic_write.py",
        "os.fsync(file.fileno())",
        "pass",
        f"{_DURABILITY}::test_a_picture_and_its_name_are_durable_before_the_ledger_says_done",
    ),
    Guard(
        "crash",
        "its folder is synced after the rename",
        "system/atomic_write.py",
        '        failpoint("write.folder")\n        sync_folder(path.parent)',
        '        failpoint("write.folder")',
        f"{_DURABILITY}::test_a_picture_and_its_name_are_durable_before_the_ledger_says_done",
    ),
    Guard(
        "crash",
        "the ledger is synced at every commit",
        "storage/database.py",
        "PRAGMA synchronous = FULL",
        "PRAGMA synchronous = OFF",
        f"{_DURABILITY}::test_the_copies_are_durable_before_the_claim_and_the_move_before_the_queue",
    ),
    Guard(
        "crash",
        "copies are synced before the claim",
        "intake/upload_folder.py",
        "        batch.add(copy_fd)",
        "        os.close(copy_fd)",
        f"{_DURABILITY}::test_the_copies_are_durable_before_the_claim_and_the_move_before_the_queue",
    ),
    Guard(
        "crash",
        "report.json comes last",
        "reporting/report.py",
        "    sheets = write_sheets(",
        "    write_json(folder / REPORT_FILE, {})\n    sheets = write_sheets(",
        f"{_DURABILITY}::test_the_report_comes_last_and_is_durable",
    ),
    Guard(
        "crash",
        "the last status.txt outlives a power cut",
        "reporting/report.py",
        "write_text(folder / STATUS_FILE, with_newer(",
        "write_text(folder / STATUS_FILE, durable=False, text=with_newer(",
        f"{_DURABILITY}::test_the_report_comes_last_and_is_durable",
    ),
    Guard(
        "crash",
        "an empty folder is gone before it is forgotten",
        "intake/claim.py",
        "            os.fsync(inputs_fd)  # before they",
        "            pass  # before they",
        f"{_DURABILITY}::test_the_empty_folder_is_gone_for_good_before_it_is_forgotten",
    ),
    Guard(
        "crash",
        "an attempt is counted before the engine is asked",
        "storage/ledger.py",
        "attempts = attempts + 1, reason = ''",
        "reason = ''",
        f"{_DEATHS}::test_a_look_that_takes_the_daemon_down_is_not_tried_for_ever",
    ),
    Guard(
        "crash",
        "a receipt saves a finished picture",
        "daemon/outcomes.py",
        "        return result\n",
        "        return None\n",
        "integration/test_daemon.py::test_a_finished_picture_is_not_made_again_after_a_crash",
    ),
    Guard(
        "crash",
        "a report counts only for the state that it tells",
        "storage/ledger.py",
        "reported = 1 WHERE id = ? AND status = ? AND changed_s = ? AND finished_s IS ?",
        "reported = 1 WHERE id = ? AND ? > '' AND ? >= 0 AND ? IS NOT 'never'",
        "unit/storage/test_ledger.py::test_a_report_of_what_was_true_before_a_retry_is_not_the_last_word",
    ),
    Guard(
        "crash",
        "a picture whose process died before saying so counts",
        "daemon/outcomes.py",
        "            result = self._finished_before(record)\n            if result is None:",
        "            result = None\n            if result is None:",
        f"{_DEATHS}::test_a_picture_whose_process_died_before_it_could_say_so_is_not_made_again",
    ),
    Guard(
        "crash",
        "a receipt is believed only with its very picture",
        "reporting/verification.py",
        " or hash_picture(picture) != found.result.sha256:",
        ":",
        f"{_STORAGE}::test_recovery_keeps_whole_pictures_and_queues_the_rest",
    ),
    Guard(
        "crash",
        "a receipt is believed only for this very attempt of this very upload",
        "reporting/verification.py",
        "found.result if found.subject == subject_of(job, record) else None",
        "found.result",
        "unit/daemon/test_dispatcher_storage.py::"
        "test_a_receipt_and_picture_of_a_former_upload_are_never_taken_for_the_new_ones",
    ),
    Guard(
        "crash",
        "a picture changed before it was recorded is made again",
        "daemon/outcomes.py",
        "if hash_picture(picture) != result.sha256:\n            self._try_again(",
        "if False:\n            self._try_again(",
        f"{_DISPATCH}::test_a_picture_that_is_not_the_one_that_was_made_is_made_again",
    ),
    Guard(
        "crash",
        "interrupted claims are finished or undone",
        "intake/claim.py",
        "return [self._resume(ledger, job, origin, now_s) for job, origin in ledger.pending_claims()]",
        "return []",
        f"{_SPOOL}::test_kill_9_at_every_step_loses_and_doubles_nothing",
    ),
    Guard(
        "crash",
        "a damaged copy is never used",
        "intake/claim.py",
        "            if not self._is_intact(job):",
        "            if False:",
        f"{_SPOOL}::test_a_damaged_copy_is_never_used",
    ),
    Guard(
        "crash",
        "a result that cannot be recorded is recorded later",
        "daemon/outcomes.py",
        "            self._unwritten[0](now_s)\n            self._unwritten.popleft()",
        "            self._unwritten.popleft()(now_s)",
        f"{_STORAGE}::test_a_result_that_cannot_be_recorded_is_recorded_later",
    ),
)
