"""The guards of the models, for guards.py.

Parts: "hub", fetching bundles; "weights", reading them, and the other models beside them.
"""

from __future__ import annotations

from guard import Guard

_HUB = "integration/test_hub.py"
_FOLDERS = "integration/test_hub_folders.py"
_REFUSALS = f"{_HUB}::test_refusals_are_sentences"


def _hub(name: str, file: str, text: str, instead: str, test: str) -> Guard:
    return Guard("hub", name, file, text, instead, test if "::" in test else f"{_HUB}::{test}")


def _weights(name: str, file: str, text: str, instead: str, test: str) -> Guard:
    return Guard("weights", name, file, text, instead, test)


HUB = (
    _hub(
        "the licence is said before anything is fetched",
        "bundles/download.py",
        "self._listener.say(self._bundle.notice)",
        "pass",
        "test_a_pull_brings_what_is_needed_pins_and_records_it",
    ),
    _hub(
        "progress is counted",
        "bundles/download.py",
        "                    meter.count(len(chunk))",
        "                    pass",
        "test_a_terminal_shows_a_bar_that_grows",
    ),
    _hub(
        "interrupted at half: asked again",
        "bundles/download.py",
        "        if failures >= _ATTEMPTS or wait_s > _LONGEST_WAIT_S:",
        "        if True:",
        "test_a_connection_that_breaks_at_half_goes_on_from_there",
    ),
    _hub(
        "interrupted at half: only the rest is asked for",
        "bundles/hub.py",
        '"Range": f"bytes={start}-"',
        '"Range": "bytes=0-"',
        "test_a_connection_that_breaks_at_half_goes_on_from_there",
    ),
    _hub(
        "killed at half: what came is kept",
        "bundles/download.py",
        'with part.open("ab") as stream:',
        'with part.open("wb") as stream:',
        "test_kill_9_at_half_goes_on_from_there",
    ),
    _hub(
        "killed at half: the plan is kept",
        "bundles/download.py",
        "read_record(self._partial / PLAN) or read_record(self._root / RECORD)",
        "read_record(self._root / RECORD)",
        "test_kill_9_at_half_goes_on_from_there",
    ),
    _hub(
        "what is half here is no complete bundle",
        "bundles/integrity.py",
        "if (root / PARTIAL / PLAN).exists():",
        "if False:",
        "test_kill_9_at_half_goes_on_from_there",
    ),
    _hub(
        "a hub that stays down is said",
        "bundles/download.py",
        "except hub.TransferError as error:\n                trouble = error\n            size",
        "except ZeroDivisionError as error:\n                trouble = error\n            size",
        "test_a_hub_that_goes_down_is_said_and_nothing_is_lost",
    ),
    _hub(
        "an answer from the beginning is not joined to a part",
        "bundles/hub.py",
        "position = start if response.status_code == _PARTIAL_CONTENT else 0",
        "position = start",
        "test_a_server_without_ranges_is_asked_for_all_of_it_again",
    ),
    _hub(
        "corruption on the way is noticed",
        "bundles/download.py",
        "            if found == (file.sha256 or file.git_sha1):",
        "            if True:",
        "test_damage_on_the_way_is_noticed_and_fetched_once_more",
    ),
    _hub(
        "corruption that comes back ends the fetch",
        "bundles/download.py",
        "for attempt in range(2):",
        "for attempt in range(9):",
        "test_damage_that_comes_back_is_refused",
    ),
    _hub(
        "401 without a token",
        "bundles/hub.py",
        "    if code in (401, 403):",
        "    if False:",
        f"{_REFUSALS}[token--words0]",
    ),
    _hub(
        "401 with a wrong token",
        "bundles/hub.py",
        'token = "the token that is set is not accepted" if is_set else "no token is set"',
        'token = "no token is set"',
        f"{_REFUSALS}[token-hf_wrong-words1]",
    ),
    _hub(
        "gated (403)",
        "bundles/hub.py",
        "except GatedRepoError as error:",
        "except ZeroDivisionError as error:",
        f"{_REFUSALS}[gated--words2]",
    ),
    _hub(
        "404 of a revision",
        "bundles/hub.py",
        "except RevisionNotFoundError as error:",
        "except ZeroDivisionError as error:",
        f"{_REFUSALS}[no revision--words4]",
    ),
    _hub(
        "404 of a file",
        "bundles/hub.py",
        "except RemoteEntryNotFoundError as error:",
        "except ZeroDivisionError as error:",
        f"{_REFUSALS}[no file--words5]",
    ),
    _hub(
        "a repository that lacks a file",
        "bundles/download.py",
        "        if lacking:",
        "        if False:",
        f"{_REFUSALS}[layout--words6]",
    ),
    _hub(
        "names that lead out of the folder",
        "bundles/hub.py",
        'return not path.is_absolute() and ".." not in path.parts',
        "return bool(path.parts)",
        "test_names_that_lead_out_of_the_folder_are_no_files_of_a_bundle",
    ),
    _hub(
        "the token is sent",
        "bundles/hub.py",
        'headers = build_hf_headers(library_name="fastfit-watch")',
        'headers = build_hf_headers(library_name="fastfit-watch", token=False)',
        "test_a_token_goes_to_the_hub_alone_and_is_never_told",
    ),
    _hub(
        "no network",
        "bundles/download.py",
        "            raise hub.unreachable(trouble, self._root) from trouble",
        "            raise trouble",
        "test_no_network",
    ),
    _hub(
        "no network, by HF_HUB_OFFLINE: the listing",
        "bundles/hub.py",
        "except OfflineModeIsEnabled as error:",
        "except ZeroDivisionError as error:",
        "test_offline_by_the_users_wish",
    ),
    _hub(
        "no network, by HF_HUB_OFFLINE: a file",
        "bundles/download.py",
        "        if hub.is_offline():",
        "        if False:",
        "test_offline_by_the_users_wish",
    ),
    _hub(
        "what is complete needs no network",
        "bundles/download.py",
        "if pinned is not None and not update:",
        "if False:",
        "test_what_is_complete_never_needs_the_hub_again",
    ),
    _hub(
        "what was copied here by hand needs no network",
        "bundles/provision.py",
        "    if condition.state is not BundleState.COMPLETE:\n        from",
        "    if True:\n        from",
        f"{_FOLDERS}::test_a_folder_filled_by_hand_is_used_as_it_is",
    ),
    _hub(
        "nor do repositories that lie beside each other",
        "bundles/provision.py",
        '    if condition.state is BundleState.ABSENT and "/" not in name:',
        "    if False:",
        f"{_FOLDERS}::test_repositories_beside_each_other_are_used_by_links",
    ),
    _hub(
        "a directory named by its path is never fetched",
        "bundles/provision.py",
        ' or (condition.state is not BundleState.COMPLETE and "/" in name)',
        "",
        f"{_FOLDERS}::test_a_directory_named_by_its_path_is_never_fetched",
    ),
    _hub(
        "free space is checked before",
        "bundles/download.py",
        "if needed_bytes + _SPARE_BYTES > free_bytes:",
        "if False:",
        "test_too_small_a_disk_is_said_before_anything_is_fetched",
    ),
    _hub(
        "a truncated file is named at the start",
        "bundles/integrity.py",
        "    if size == file.bytes:\n",
        "    if True:\n",
        f"{_FOLDERS}::test_a_truncated_file_is_named_at_start_and_mended_by_a_pull",
    ),
    _hub(
        "what is damaged is fetched again",
        "bundles/download.py",
        "        return fault is None",
        "        return True",
        f"{_FOLDERS}::test_a_truncated_file_is_named_at_start_and_mended_by_a_pull",
    ),
    _hub(
        "verify reads every byte",
        "bundles/integrity.py",
        "    if found == (file.sha256 or file.git_sha1):",
        "    if True:",
        f"{_FOLDERS}::test_wrong_bytes_of_the_right_number_are_found_by_verify",
    ),
    _hub(
        "a copy by hand: cut-off files",
        "bundles/integrity.py",
        '(path.suffix == ".safetensors" and size != _safetensors_bytes(path))',
        "False",
        f"{_FOLDERS}::test_a_hand_copy_with_faults_names_them",
    ),
    _hub(
        "a copy by hand: Git's pointers",
        "bundles/integrity.py",
        "    if head == _LFS_POINTER:",
        "    if False:",
        f"{_FOLDERS}::test_a_hand_copy_with_faults_names_them",
    ),
    _hub(
        "the pinned revision is what is asked for",
        "bundles/hub.py",
        "hf_hub_url(repository, name, revision=commit_hash)",
        'hf_hub_url(repository, name, revision="main")',
        f"{_FOLDERS}::test_a_lost_file_comes_from_the_pinned_commit",
    ),
    _hub(
        "an update removes what the last commit had",
        "bundles/download.py",
        "            self._remove_outdated(plan)",
        "            pass",
        f"{_FOLDERS}::test_a_pinned_revision_stays_until_an_update",
    ),
    _hub(
        "an update that fails leaves what was there",
        "bundles/download.py",
        "commit(part, self._partial / file.key)\n",
        "commit(part, self._root / file.path)\n",
        f"{_FOLDERS}::test_a_pinned_revision_stays_until_an_update",
    ),
    _hub(
        "one process fetches, the other waits",
        "bundles/download.py",
        "fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        f"{_FOLDERS}::test_two_pulls_at_once_fetch_everything_once",
    ),
)
WEIGHTS = (
    _weights(
        "code in a .pth never runs",
        "engine/parsers/checkpoints.py",
        "weights_only=True",
        "weights_only=False",
        "unit/engine/parsers/test_schp.py::test_code_in_a_checkpoint_never_runs",
    ),
    _weights(
        "code in a pickle never runs",
        "engine/parsers/densepose_checkpoint.py",
        'raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which weights never need")',
        "return super().find_class(module_name, global_name)",
        "unit/engine/parsers/test_densepose_checkpoint.py::test_code_in_a_pickle_is_refused_and_never_run",
    ),
    _weights(
        "a converted copy is used while it belongs to its file",
        "engine/parsers/checkpoints.py",
        "if _stamp_of_copy(copy) == stamp:",
        "if copy.exists():",
        "unit/engine/parsers/test_schp.py::test_changed_checkpoint_is_converted_again",
    ),
    _weights(
        "names of the released parsers",
        "engine/parsers/schp.py",
        "_RENAMES.get(name, name)",
        "name",
        "unit/engine/parsers/test_schp.py::test_every_tensor_finds_its_place",
    ),
    _weights(
        "LIP's and ATR's files swapped",
        "engine/parsers/schp.py",
        "        if tensor is None or tensor.shape != wanted.shape:",
        "        if tensor is None:",
        "unit/engine/parsers/test_schp.py::test_swapped_datasets_are_noticed",
    ),
    _weights(
        "DWPose's two files swapped",
        "engine/parsers/dwpose.py",
        "    if fixed != input_shape:",
        "    if False:",
        "unit/engine/parsers/test_dwpose.py::test_swapped_files_are_refused_at_load",
    ),
    _weights(
        "DWPose on a GPU is seen to hold (get_providers)",
        "engine/parsers/dwpose.py",
        "if wanted[0][0] not in session.get_providers():",
        "if False:",
        "unit/engine/parsers/test_dwpose.py::test_cuda_is_never_swapped_for_the_cpu_in_silence",
    ),
    _weights(
        "a content filter's pickles are never read",
        "engine/content_filter.py",
        "use_safetensors=True, ",
        "",
        "unit/engine/test_content_filter.py::test_pickled_weights_are_never_read",
    ),
    _weights(
        "its code is never run",
        "engine/content_filter.py",
        '"trust_remote_code": False',
        '"trust_remote_code": True',
        "unit/engine/test_content_filter.py::test_code_of_a_model_is_never_run",
    ),
    _weights(
        "a picture without a number is withheld",
        "engine/content_filter.py",
        "        if score < self._threshold:",
        "        if not score >= self._threshold:",
        "unit/engine/test_content_filter.py::test_a_picture_without_a_number_is_withheld",
    ),
    _weights(
        "a fetched filter is pinned",
        "engine/content_filter.py",
        "network, processor = read(here_only=True)",
        "network, processor = read(here_only=False)",
        "integration/test_withheld.py::test_a_filter_from_the_hub_is_fetched_once_and_pinned",
    ),
    _weights(
        "doctor reminds of a filter",
        "cli/doctor/weights.py",
        'return poor("filter", message, "Set content_filter.model, or have a person look at every result.")',
        'return good("filter", message)',
        "unit/cli/doctor/test_show.py::test_the_reminder_of_a_content_filter",
    ),
)
