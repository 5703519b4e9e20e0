"""The guards of the memory ladder (part "memory"), for guards.py."""

from __future__ import annotations

from guard import Guard

_MEMORY, _BENCH, _NOTES = (
    "unit/engine/test_memory_ladder.py",
    "unit/worker/test_pipeline.py",
    "unit/daemon/test_rung_store.py",
)
_ANY_STAGE = f"{_BENCH}::test_a_shortage_in_any_stage_ends_in_a_picture_one_rung_lower"


def _memory(name: str, file: str, text: str, instead: str, test: str) -> Guard:
    return Guard("memory", name, file, text, instead, test)


MEMORY = (
    _memory(
        "torch's error becomes one of its stage",
        "engine/measurement.py",
        "        if not is_out_of_memory(error):\n            raise\n",
        "        raise\n",
        _ANY_STAGE,
    ),
    _memory(
        "so do those of CUDA's libraries",
        "engine/measurement.py",
        "isinstance(error, RuntimeError) and any(phrase in said for phrase in _FULL_DEVICE)",
        "False",
        f"{_MEMORY}::test_what_a_full_device_says",
    ),
    _memory(
        "a shortage leads one rung down",
        "engine/memory_ladder.py",
        "        except OutOfMemory as error:\n            note(rung, error)",
        "        except ZeroDivisionError as error:\n            note(rung, error)",
        _ANY_STAGE,
    ),
    _memory(
        "also while loading",
        "engine/tryon.py",
        'with memory_errors(device, "load"):',
        "if True:",
        f"{_MEMORY}::test_loading_goes_down_the_ladder",
    ),
    _memory(
        "also while the networks are moved",
        "engine/tryon.py",
        'with memory_errors(self.device, "place"):',
        "if True:",
        f"{_BENCH}::test_a_shortage_while_the_networks_are_moved_leads_on",
    ),
    _memory(
        "also in a preparation beside another look",
        "worker/pipeline.py",
        "            except OutOfMemory as error:\n                log_line(",
        "            except ZeroDivisionError as error:\n                say(",
        f"{_ANY_STAGE}[parse]",
    ),
    _memory(
        "also in the content filter",
        "engine/content_filter.py",
        'with memory_errors(self._device, "filter"):',
        "if True:",
        f"{_BENCH}::test_a_shortage_of_the_content_filter_is_one_of_the_look",
    ),
    _memory(
        "the failed attempt is gone before the next",
        "engine/memory_ladder.py",
        "            note(rung, error)\n",
        "            note(rung, error)\n            kept = error\n",
        f"{_MEMORY}::test_an_attempt_is_gone_before_the_next_begins",
    ),
    _memory(
        "networks that do not fit wait in the machine's memory",
        "engine/memory_ladder.py",
        "                network.to(_AWAY)\n            raise\n",
        "                pass\n            raise\n",
        f"{_MEMORY}::test_networks_that_do_not_fit_wait_in_the_machines_memory",
    ),
    _memory(
        "only the network at work is on the device",
        "engine/memory_ladder.py",
        "        for network in moved:\n            network.to(_AWAY)\n        if moved:",
        "        if moved:",
        f"{_MEMORY}::test_offload_keeps_only_the_network_at_work_on_the_device",
    ),
    _memory(
        "halves are shown to the network one by one",
        "engine/tryon.py",
        "halves = self.rung.reaches(Rung.HALVES)",
        "halves = False",
        f"{_MEMORY}::test_halves_never_show_the_network_more_than_one_row",
    ),
    _memory(
        "tiles are tiles",
        "engine/memory_ladder.py",
        "    vae.use_tiling = on",
        "    vae.use_tiling = False",
        f"{_MEMORY}::test_tiles_give_nearly_the_same_picture_and_really_tile",
    ),
    _memory(
        "what was kept is let go on the way down",
        "engine/tryon.py",
        "        self.cache.clear()\n        with memory_errors(",
        "        with memory_errors(",
        f"{_MEMORY}::test_what_was_kept_is_let_go_on_the_way_down",
    ),
    _memory(
        "pictures shrink with permission only",
        "domain/memory_ladder.py",
        " and (allow_smaller or rung is not Rung.SMALLER)",
        "",
        f"{_BENCH}::test_pictures_shrink_with_permission_only",
    ),
    _memory(
        "the daemon is told before the next rung is tried",
        "worker/pipeline.py",
        "        self._channel.send(RungLowered(order.token, tried, rung, error.message))\n",
        "",
        _ANY_STAGE,
    ),
    _memory(
        "what was learnt serves the looks in hand",
        "worker/pipeline.py",
        "        self._shortage = (rung, time.monotonic())\n",
        "",
        "integration/test_memory_ladder.py::test_a_shortage_in_every_stage_costs_no_look_and_is_remembered",
    ),
    _memory(
        "the rung that worked is remembered",
        "daemon/rung_store.py",
        "        self._ledger.put_note(RUNG_NOTES + device, json.dumps(asdict(note)))",
        "        asdict(note)",
        f"{_NOTES}::test_the_rung_that_worked_is_used_by_the_next_daemon_too",
    ),
    _memory(
        "and forgotten after a while",
        "daemon/rung_store.py",
        "not 0 <= now_s - note.since_s < config.memory.remember_s",
        "False",
        f"{_NOTES}::test_after_a_day_the_top_is_tried_again",
    ),
    _memory(
        "and where it did not work either",
        "daemon/dispatcher.py",
        "self._outcomes.append(lambda now_s: self._rung_store.forget(attempt.device))",
        "pass",
        f"{_NOTES}::test_after_a_shortage_on_every_rung_the_next_attempt_begins_at_the_top",
    ),
)
