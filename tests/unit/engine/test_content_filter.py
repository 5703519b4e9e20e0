"""The content filter: a real, tiny transformers classifier from a directory judges pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.tiny_classifier import write_classifier

from fastfit_watch.config.settings import load_config
from fastfit_watch.domain.errors import BundleError, ConfigError, OutOfMemory
from fastfit_watch.engine.content_filter import ContentFilter
from fastfit_watch.system.failpoints import VARIABLE

PICTURE = Image.new("RGB", (60, 80), "teal")
# Shares of normal, nsfw and gore: 0.5, 0.3 and 0.2.
SHARES = tuple(math.log(share) for share in (0.5, 0.3, 0.2))


def load(folder: Path, labels: tuple[str, ...], threshold: float) -> ContentFilter:
    return ContentFilter.load(str(folder), labels, threshold, "cpu", folder / "models")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier"), SHARES)


@pytest.mark.parametrize(
    ("labels", "threshold", "reason"),
    [
        (("nsfw",), 0.29, "sees nsfw (0.30, the limit is 0.29)"),
        (("NSFW",), 0.31, None),
        (("nsfw", "gore"), 0.49, "sees nsfw (0.50, the limit is 0.49)"),
        (("gore",), 0.25, None),
    ],
)
def test_labels_that_exclude_each_other_count_together(
    classifier: Path, labels: tuple[str, ...], threshold: float, reason: str | None
) -> None:
    found = load(classifier, labels, threshold).judge(PICTURE)
    assert (found is None) if reason is None else (found or "").endswith(reason)


def test_labels_that_do_not_exclude_each_other_count_for_themselves(tmp_path: Path) -> None:
    logits = tuple(math.log(share / (1 - share)) for share in (0.9, 0.4, 0.3))
    folder = write_classifier(tmp_path / "multi", logits, multi_label=True)
    assert load(folder, ("nsfw", "gore"), 0.45).judge(PICTURE) is None
    assert load(folder, ("nsfw", "gore"), 0.35).judge(PICTURE) is not None


def test_a_picture_without_a_number_is_withheld(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "broken", (0.0, math.nan, 0.0))
    assert load(folder, ("nsfw",), 1.0).judge(PICTURE) is not None


def test_a_label_the_model_lacks_is_named_with_those_it_has(classifier: Path) -> None:
    with pytest.raises(BundleError, match=r"no label 'nude'\. Its labels are: normal, nsfw, gore\."):
        load(classifier, ("nude", "nsfw"), 0.5)


def test_what_is_no_classifier_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BundleError, match=r"The content filter .* cannot be loaded: .*content_filter\.model"):
        load(tmp_path, ("nsfw",), 0.5)


def test_pickled_weights_are_never_read(classifier: Path, tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((classifier / name).read_bytes())
    network = ContentFilter.load(str(classifier), ("nsfw",), 0.5, "cpu", tmp_path)._network
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(BundleError, match="cannot be loaded"):
        load(tmp_path, ("nsfw",), 0.5)


def test_code_of_a_model_is_never_run(classifier: Path, tmp_path: Path) -> None:
    for path in classifier.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForImageClassification": "own.Own"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(BundleError, match="cannot be loaded"):
        load(tmp_path, ("nsfw",), 0.5)
    assert not (tmp_path / "ran").exists()


def test_its_shortage_of_memory_is_one_of_the_look(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "memory.full.filter:1:ENOMEM")
    with pytest.raises(OutOfMemory, match="in the stage 'filter'"):
        load(classifier, ("nsfw",), 0.5).judge(PICTURE)


def test_a_filter_without_labels_is_a_mistake_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("content_filter: {model: some/classifier}\n")
    with pytest.raises(ConfigError, match=r"content_filter.*name in 'labels' which"):
        load_config(tmp_path / "c.yaml")
