"""The manifest: both forms, every fault with its line and a fix, all together; and YAML that means harm."""

from __future__ import annotations

import time
import unicodedata
from functools import cache

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fastfit_watch.config.safe_yaml import MAX_FAULTS
from fastfit_watch.domain.errors import Fault, ManifestError
from fastfit_watch.domain.look import DRESS_CONFLICT, Category, Framing, ImageFormat, MaskMode, SamplingOptions
from fastfit_watch.intake.manifest import MAX_BYTES, MAX_PICTURES, Manifest, misnamed_manifest, read_manifest

NAMES = ("anna.jpg", "ben.jpg", "clutch.png", "gown.jpg", "jeans.jpg", "outfit.yaml", "shirt.jpg")
SHORT = "person: anna.jpg\nupper: shirt.jpg\n"


def read(text: str | bytes, names: tuple[str, ...] = NAMES) -> Manifest:
    return read_manifest(text.encode() if isinstance(text, str) else text, "outfit.yaml", names)


@cache
def honest_s() -> float:
    """Seconds of processor time that the YAML library takes to scan a manifest of the greatest length."""
    share = 10  # a tenth of it, for a tenth of the time
    line = "  look: {upper: shirt.jpg, lower: jeans.jpg}\n"
    text = "person: anna.jpg\nlooks:\n" + line * (MAX_BYTES // share // len(line))
    began_s = time.thread_time()
    assert sum(1 for _ in yaml.scan(text)) > MAX_BYTES // share // len(line)
    return share * (time.thread_time() - began_s)


def faults_of(text: str | bytes, names: tuple[str, ...] = NAMES) -> tuple[Fault, ...]:
    began_s = time.thread_time()
    with pytest.raises(ManifestError) as caught:
        read(text, names)
    assert time.thread_time() - began_s < 5 * honest_s()
    for fault in caught.value.faults:
        assert fault.file == "outfit.yaml" and fault.message and fault.fix
        assert str(fault).isprintable()
    return caught.value.faults


def only_fault(text: str | bytes, names: tuple[str, ...] = NAMES) -> Fault:
    faults = faults_of(text, names)
    assert len(faults) == 1, faults
    return faults[0]


def test_the_short_form() -> None:
    manifest = read("person: anna.jpg\nupper: shirt.jpg\nlower: jeans.jpg\nseed: 7\n")
    (look,) = manifest.looks
    assert (look.person, look.key) == ("anna.jpg", "anna.look")
    assert look.garments == {Category.UPPER: "shirt.jpg", Category.LOWER: "jeans.jpg"}
    assert look.options == SamplingOptions(seed=7)
    assert manifest.files == ("anna.jpg", "shirt.jpg", "jeans.jpg") and manifest.missing == ()
    assert manifest.summary == "1 person, 1 look: 1 picture"


def test_the_long_form() -> None:
    manifest = read(
        "people: [anna.jpg, ben.jpg]\nsteps: 30\nmask: worn\nlooks:\n"
        "  casual: {upper: shirt.jpg, lower: jeans.jpg}\n"
        "  gala:   {dress: gown.jpg, bag: clutch.png, steps: 40, people: [anna.jpg]}\n"
    )
    assert [look.key for look in manifest.looks] == ["anna.casual", "anna.gala", "ben.casual"]
    assert [look.options.steps for look in manifest.looks] == [30, 40, 30]
    assert {look.options.mask for look in manifest.looks} == {MaskMode.WORN}
    assert manifest.files == ("anna.jpg", "ben.jpg", "shirt.jpg", "jeans.jpg", "gown.jpg", "clutch.png")
    assert manifest.summary == "2 people, 2 looks: 3 pictures"


def test_every_option() -> None:
    text = "steps: 200\nseed: 9223372036854775807\nguidance: 20\nmask: worn\nframing: paste_back\nformat: jpeg\n"
    (look,) = read(SHORT + text).looks
    assert look.options == SamplingOptions(200, 2**63 - 1, 20.0, MaskMode.WORN, Framing.PASTE_BACK, ImageFormat.JPG)
    assert read(SHORT + "format: webp").looks[0].options.format is ImageFormat.WEBP
    assert read(SHORT + "guidance: 1\nseed: 0\nsteps: 1").looks[0].options == SamplingOptions(1, 0, 1.0)


@pytest.mark.parametrize(
    "option",
    [
        *("steps: 0", "steps: 201", "steps: 3.5", "steps: yes", "steps:", "steps: [1]", "steps: 1_0", "steps: ٣"),
        *("seed: -1", "seed: 9223372036854775808", "seed: 0x10", "seed: 1e3", "seed: random", "seed: " + "9" * 5000),
        *("guidance: 0.5", "guidance: 20.1", "guidance: nan", "guidance: .inf", "guidance: 2,5"),
        *("mask: half", "framing: {}", "format: gif", "format: null"),
    ],
)
def test_an_option_out_of_range(option: str) -> None:
    fault = only_fault(SHORT + option)
    name = option.split(":")[0]
    assert fault.line == 3 and f"'{name}' must be" in fault.message and f"'{name}: " in fault.fix


def test_yaml_surprises_do_not_happen() -> None:
    manifest = read("people: [anna.jpg]\nseed: 010\nlooks:\n  no: {upper: shirt.jpg}\n  1e3: {upper: shirt.jpg}\n")
    assert [look.name for look in manifest.looks] == ["no", "1e3"]
    assert manifest.looks[0].options.seed == 10
    assert read('"person": "anna.jpg"\n\'upper\': !!<>\n'.replace(" !!<>", " 'shirt.jpg'")).looks == read(SHORT).looks
    assert read('{"person": "anna.jpg", "upper": "shirt.jpg"}').looks == read(SHORT).looks
    assert read("person: 12:30:45\nupper: 1.0", ("12:30:45", "1.0")).files == ("12:30:45", "1.0")


def test_patterns_find_pictures_that_are_no_garments() -> None:
    names = (*NAMES, ".hidden.jpg", "notes.txt", "READY", "Carl.JPEG")
    assert read("people: ['*']\nlooks: {a: {upper: shirt.jpg, bag: clutch.png}}", names).summary.startswith("5 people")
    manifest = read("people: ['?nna.jpg', 'a*', 'anna.jpg']\nupper: shirt.jpg", names)
    assert [look.person for look in manifest.looks] == ["anna.jpg"]
    odd = ("anna [1].jpg", "anna 1.jpg", "shirt.jpg")
    assert [look.person for look in read("person: anna [1].jpg\nupper: shirt.jpg", odd).looks] == ["anna [1].jpg"]
    assert read("person: 'anna [[]1].jpg'\nupper: shirt.jpg", odd).looks[0].person == "anna [1].jpg"
    assert read("person: 'x[z-a]*'\nupper: shirt.jpg", odd).missing == ("x[z-a]*",)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.jpg", ["BEN.JPG", "anna.jpg", "eva.Jpg"]),
        ("*.JPG", ["BEN.JPG", "anna.jpg", "eva.Jpg"]),
        ("*.j*", ["BEN.JPG", "anna.jpg", "dora.jpeg", "eva.Jpg"]),
        ("B*.jpg", ["BEN.JPG"]),
        ("[A-Z]*.jp[eg]", ["BEN.JPG"]),
        ("*.jpe?", ["dora.jpeg"]),
        ("*", ["BEN.JPG", "anna.jpg", "cara.PNG", "dora.jpeg", "eva.Jpg"]),
    ],
)
def test_extensions_match_in_any_case(pattern: str, found: list[str]) -> None:
    names = ("anna.jpg", "BEN.JPG", "cara.PNG", "dora.jpeg", "eva.Jpg", "notes.JPG.txt", "shirt.png")
    manifest = read(f"people: ['{pattern}']\nupper: shirt.png", names)
    assert [look.person for look in manifest.looks] == found
    assert manifest.unused == tuple(sorted(set(names) - {*found, "shirt.png", "notes.JPG.txt"}))


@pytest.mark.parametrize(
    ("written", "there", "hint"),
    [
        ("Anna.jpg", "anna.jpg", "'anna.jpg' is there: names must match exactly"),
        ("anna.jpg", "anna.JPG", "'anna.JPG' is there"),
        ("anna.jpg", "anna.jpeg", "'anna.jpeg' is there"),
        ("anna.jpg", "anna.jpg.jpg", "'anna.jpg.jpg' is there"),
        ("anna", "anna.jpg", "'anna.jpg' is there"),
        ("anna.jpg", "anna.png", "'anna.png' is there"),
        ("anna 1.jpg", "anna\u202f1.jpg", "is there: names"),
        ("花子 1.jpg", "花子\u30001.jpg", "is there: names"),
        ("anna #1.jpg", "anna #1.jpg", "'anna #1.jpg' is there: YAML takes what follows ' #' for a comment"),
        ("anna #1.jpg   ", "anna #1.jpg", "put the name in quotes"),
        ("photo-anna.jpg", "foto-anna.jpg", "Did you mean 'foto-anna.jpg'?"),
        ("anna.jpg", "quite_another.jpg", ""),
        ("'A*.jpg'", "anna.jpg", "'anna.jpg' is there: names"),
        ("'x*.jpg'", "anna.jpg", ""),
    ],
)
def test_what_is_missing_has_its_line_and_the_name_that_comes_near(written: str, there: str, hint: str) -> None:
    manifest = read(f"upper: shirt.png\nperson: {written}\n", (there, "shirt.png"))
    (missing,) = manifest.missing_files
    assert missing.line == 2 and hint in missing.hint and bool(hint) == bool(missing.hint)
    assert manifest.unused == (there,)


def test_a_name_that_is_used_already_is_no_hint() -> None:
    manifest = read("people: [anna.jpg, Ann.jpg]\nupper: shirt.jpg\n", ("anna.jpg", "shirt.jpg"))
    assert [file.hint for file in manifest.missing_files] == [""]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("anna.jpg, ben.jpg", "[anna.jpg, ben.jpg]"),
        ("anna.jpg,ben.jpg", "[anna.jpg, ben.jpg]"),
        ("anna.jpg; BEN.JPG", "[anna.jpg, BEN.JPG]"),
        ("anna.jpg ben.jpg", "[anna.jpg, ben.jpg]"),
        ("anna.jpg and ben.jpg", "[anna.jpg, ben.jpg]"),
        ("anna.jpg, ben.jpg and cara.webp", "[anna.jpg, ben.jpg, cara.webp]"),
        ("anna.jpg\n  ben.jpg", "[anna.jpg, ben.jpg]"),
        ("'anna.jpg, *.png'", "[anna.jpg, *.png]"),
        ("[anna.jpg ben.jpg]", "[anna.jpg, ben.jpg]"),
    ],
)
def test_a_list_without_brackets_is_called_one(value: str, shown: str) -> None:
    fault = only_fault(f"upper: shirt.jpg\npeople: {value}\n")
    assert fault.line == 2 and "is read as one name" in fault.message
    assert "Put brackets round a list" in fault.fix and shown in fault.fix


@pytest.mark.parametrize("name", ["anna, right.jpg", "a.b, c.jpg", "anna and ben.jpg", "anna.jpg, ben.jpg"])
def test_a_name_with_a_comma_is_a_name(name: str) -> None:
    assert read(f"person: {name}\nupper: shirt.jpg\n", (name, "shirt.jpg")).missing == ()


@pytest.mark.parametrize("quotes", ["“”", "„“", "\u2018\u2019", "«»", "””"])
@pytest.mark.parametrize("key", ["person", "people", "upper"])
def test_curly_quotes_are_named(quotes: str, key: str) -> None:
    value = f"{quotes[0]}ben.jpg{quotes[1]}"
    fault = only_fault(
        f"person: {value}\nupper: shirt.jpg\n"
        if key == "person"
        else f"person: anna.jpg\nlooks: {{a: {{{key}: {value}, bag: clutch.png}}}}"
    )
    assert "curly quotes" in fault.fix and "straight ones" in fault.fix
    assert read(f"person: {value}\nupper: shirt.jpg\n", (value, "shirt.jpg")).missing == ()


@pytest.mark.parametrize(
    ("text", "line", "fix"),
    [
        ("person:\tanna.jpg\nupper:\tshirt.jpg\n", 1, "Put a space after the colon, not a tab."),
        ("person: anna.jpg\nlooks:\n\ta: {upper: shirt.jpg}\n", 3, "Indent with spaces, not with tabs."),
        ("person\uff1aanna.jpg\nupper: shirt.jpg\n", 2, "a wide colon"),
        ("person:\u00a0anna.jpg\nupper: shirt.jpg\n", 2, "a space of another kind"),
        ("person: anna.jpg\nupper: a: b.jpg\n", 2, "has ': ' in it"),
        ("people: [anna.jpg, ben #1.jpg]\nupper: shirt.jpg\n", 2, "What follows ' #' is a comment"),
    ],
)
def test_what_yaml_cannot_read_is_told_by_its_cause(text: str, line: int, fix: str) -> None:
    fault = only_fault(text)
    assert fault.line == line and fix in fault.fix


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("outfit.yaml.txt", "anna.jpg"), "outfit.yaml.txt"),
        (("outfit.yml.txt",), "outfit.yml.txt"),
        (("Outfit.YAML",), "Outfit.YAML"),
        (("OUTFIT.YML",), "OUTFIT.YML"),
        (("outfits.yaml",), "outfits.yaml"),
        (("outfit (1).yaml",), "outfit (1).yaml"),
        (("outfit",), "outfit"),
        (("outfit.txt",), "outfit.txt"),
        (("outfit.json", "a.yaml"), "outfit.json"),
        (("manifest.yaml",), "manifest.yaml"),
        (("outfit.yaml.filepart", "outfit.jpg", "outfit.schema.json", "outfit.docx", "notes.txt"), ""),
        ((), ""),
    ],
)
def test_a_manifest_under_another_name_is_found(names: tuple[str, ...], found: str) -> None:
    assert misnamed_manifest(names) == found


def test_what_is_not_there_yet_is_missing_and_no_fault() -> None:
    manifest = read("people: [anna.jpg, zoe.jpg, 'group*.jpg']\nupper: coat.jpg\n")
    assert manifest.missing == ("zoe.jpg", "group*.jpg", "coat.jpg")
    assert manifest.files == ("anna.jpg", "zoe.jpg", "coat.jpg")
    assert [look.person for look in manifest.looks] == ["anna.jpg", "zoe.jpg"]
    assert read(SHORT, ()).missing == ("anna.jpg", "shirt.jpg")


def test_a_decomposed_name_on_disk_is_found() -> None:
    stored = unicodedata.normalize("NFD", "zoë.jpg")
    assert stored != "zoë.jpg"
    manifest = read("person: zoë.jpg\nupper: shirt.jpg", (stored, "shirt.jpg"))
    assert manifest.missing == () and manifest.looks[0].person == stored
    assert read("person: 'z*.jpg'\nupper: shirt.jpg", (stored, "shirt.jpg")).looks[0].person == stored


def test_unknown_keys_get_a_suggestion() -> None:
    assert "'upper'" in only_fault(SHORT + "uper: x.jpg").fix
    assert "'person'" in only_fault("persom: a\n" + SHORT).fix
    fault = only_fault("people: [anna.jpg]\nlooks:\n  a:\n    upper: shirt.jpg\n    stps: 3\n")
    assert fault.line == 5 and "'steps'" in fault.fix
    assert "top of the file" in only_fault("person: anna.jpg\nlooks: {a: {upper: shirt.jpg, looks: {}}}").fix
    assert "Known are: upper" in only_fault(SHORT + "zzz: 1").fix


def test_a_dress_excludes_upper_and_lower() -> None:
    for other in ("upper", "lower"):
        fault = only_fault(f"person: anna.jpg\n{other}: shirt.jpg\ndress: gown.jpg\n")
        assert (fault.line, fault.message) == (3, DRESS_CONFLICT)
    assert read("person: anna.jpg\ndress: gown.jpg\nbag: clutch.png\nshoe: jeans.jpg").looks


def test_all_faults_come_together_in_order() -> None:
    text = (
        "people: [anna.jpg, ../ben.jpg]\n"
        "sed: 7\n"
        "steps: 0\n"
        "looks:\n"
        "  casual: {upper: shirt.jpg, dress: gown.jpg}\n"
        "  a/b: {upper: shirt.jpg}\n"
        "  empty: {}\n"
        "  casual: {upper: shirt.jpg}\n"
        "  gala: {dress: 'g*.jpg', colour: red}\n"
    )
    assert [fault.line for fault in faults_of(text)] == [1, 2, 3, 5, 6, 7, 8, 9, 9]


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("upper: shirt.jpg\n", 1, "names no person"),
        ("person: anna.jpg\n", 0, "no garment"),
        ("person: anna.jpg\nlooks:\n  a: {bag: clutch.png}\n  b: {seed: 3}\n", 4, "Look 'b' has no garment"),
        ("looks:\n  a: {upper: shirt.jpg}\n", 2, "Look 'a' names no person"),
        ("person: anna.jpg\nlooks: {}\n", 2, "must name its looks"),
        ("person: anna.jpg\nlooks: [a]\n", 2, "must name its looks"),
        ("person: anna.jpg\nlooks: {a: shirt.jpg}\n", 2, "must have keys"),
        ("person: anna.jpg\nupper: shirt.jpg\nlooks: {a: {bag: clutch.png}}\n", 2, "outside the looks"),
        ("person: anna.jpg\npeople: [ben.jpg]\nupper: shirt.jpg\n", 2, "both 'person' and 'people'"),
        ("people: []\nupper: shirt.jpg\n", 1, "names nobody"),
        ("people: [[anna.jpg]]\nupper: shirt.jpg\n", 1, "must be a file name"),
        ("person: anna.jpg\nupper: [shirt.jpg]\n", 2, "must be a file name"),
        ("person:\nupper: shirt.jpg\n", 1, "has no value"),
        ("person: anna.jpg\nupper: 's*.jpg'\n", 2, "one file, not a pattern"),
        ("", 0, "no keys"),
        ("# nothing\n---\n", 0, "no keys"),
        ("anna.jpg", 1, "no keys"),
        ("- anna.jpg", 1, "no keys"),
    ],
)
def test_what_a_manifest_needs(text: str, line: int, word: str) -> None:
    fault = only_fault(text)
    assert fault.line == line and word in fault.message


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/passwd", "../x.jpg", "a/b.jpg", "a\\\\b.jpg", "..", ".hidden.jpg", ".", "https://example.org/a.jpg"),
        *("READY", "CANCEL", "RETRY", "SHA256SUMS", "outfit.yaml", "outfit.yml"),
        *(
            "a\\0b.jpg",
            "a\\nb.jpg",
            "a\\x1b[31m.jpg",
            "a\\u202egpj.exe",
            "a\\u2028b",
            "a\\ud800b",
            "x" * 256,
            "試" * 86,
        ),
    ],
)
def test_only_plain_names_inside_the_folder(name: str) -> None:
    assert only_fault(f'person: "{name}"\nupper: shirt.jpg\n').line == 1
    assert only_fault(f'person: anna.jpg\nupper: "{name}"\n').line == 2


@pytest.mark.parametrize(
    "name",
    ["a/b", ".a", "-a", " a", "a\\tb", "x" * 61, "a:b", "é\\u202e", "", "\\u093ea", "a\\u3000b", "a\\u200bb", "😀"],
)
def test_names_of_looks_become_file_names(name: str) -> None:
    fault = only_fault(f'person: anna.jpg\nlooks: {{"{name}": {{upper: shirt.jpg}}}}\n')
    assert "cannot be the name of a look" in fault.message


@pytest.mark.parametrize(
    "name",
    [
        *("a", "Été 2", "a.b-c_d", "x" * 60, "試", "7", "_a"),
        *("शादी", "বিয়ে", "திருமணம்", "งานแต่ง", "می\u200cروم", "عُرْس", "חתונה", "ពិធី", "Ελλάδα", "결혼식", "\u0435\u0301"),
    ],
)
def test_good_names_of_looks(name: str) -> None:
    assert read(f"person: anna.jpg\nlooks: {{{name}: {{upper: shirt.jpg}}}}\n").looks[0].name == name


def test_results_of_one_name_are_refused() -> None:
    names = ("anna.jpg", "anna.png", "ANNA.webp", "anna.b.jpg", "shirt.jpg")
    fault = only_fault("people:\n  - anna.jpg\n  - anna.png\nupper: shirt.jpg", names)
    assert fault.line == 3 and "'anna.jpg' and 'anna.png'" in fault.message
    assert only_fault("people: [anna.jpg, ANNA.webp]\nupper: shirt.jpg", names).line == 1
    looks = "looks:\n  c: {upper: shirt.jpg, people: [anna.b.jpg]}\n  b.c: {upper: shirt.jpg, people: [anna.jpg]}\n"
    assert "one name" in only_fault(looks, names).message
    assert "'Gala' and 'gala'" in only_fault("person: anna.jpg\nlooks: {Gala: {bag: a}, gala: {bag: a}}").message
    assert len(read("people: [anna.jpg, anna.jpg]\nupper: shirt.jpg").looks) == 1


COMPOSED, DECOMPOSED = "zoë.jpg", unicodedata.normalize("NFD", "zoë.jpg")


@pytest.mark.parametrize(
    ("text", "one", "other", "difference"),
    [
        ("person: anna.jpg\nupper: shirt.jpg\nlower: Shirt.jpg\n", "shirt.jpg", "Shirt.jpg", "capitals"),
        (
            f"person: anna.jpg\nupper: {COMPOSED}\nlower: {DECOMPOSED}\n",
            COMPOSED,
            DECOMPOSED,
            "how an accent is stored",
        ),
        ("people: ['*.jpg']\nupper: shirt.png\n", COMPOSED, DECOMPOSED, "how an accent is stored"),
        ("people: ['[zZ]*']\nupper: shirt.png\n", "zoe.jpg", "ZOE.jpg", "capitals"),
        ("people: ['*']\nupper: shirt.png\n", "ben.jpg", "ben.JPG", "capitals"),
        ("people: ['*']\nupper: shirt.png\n", "م\u200cن.jpg", "من.jpg", "characters that do not show"),
        # The manifest has a third spelling, which both stand for.
        ("person: \u00c5.jpg\nupper: shirt.png", "A\u030a.jpg", "\u212b.jpg", "how an accent is stored"),
    ],
)
def test_names_that_are_too_much_alike_are_refused(text: str, one: str, other: str, difference: str) -> None:
    fault = only_fault(text, (one, other, "shirt.png", "zzz.txt"))
    assert "too much alike" in fault.message and difference in fault.message
    assert repr(one) in fault.message and repr(other) in fault.message and fault.line >= 1


def test_results_with_names_too_long_are_refused() -> None:
    assert "too long" in only_fault(f"person: {'x' * 200}.jpg\nlooks: {{{'y' * 50}: {{upper: shirt.jpg}}}}").message


def test_the_number_of_pictures_is_bounded() -> None:
    people = ", ".join(f"p{number}.jpg" for number in range(100))
    looks = "\n".join(f"  l{number}: {{upper: shirt.jpg}}" for number in range(MAX_PICTURES // 100 + 1))
    assert f"a job may have {MAX_PICTURES}" in only_fault(f"people: [{people}]\nlooks:\n{looks}\n").message
    fewer = looks.rsplit("\n", 1)[0]
    assert len(read(f"people: [{people}]\nlooks:\n{fewer}\n").looks) == MAX_PICTURES


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (LAUGHS, "alias"),
        (MERGES, "Merging"),
        ("[" * 100_000, "deep"),
        ("- " * 100_000, "deep"),
        ("{a: " * 60_000, "deep"),
        ("- a\n" * 60_000, "entries"),
        ("[" + "a," * 100_000, "entries"),
        ("? " * 100_000, "deep"),
        ("person: !!python/object/apply:os.system [ls]\n", "tag"),
        ("person: !local anna.jpg\n", "tag"),
        ("person: &p anna.jpg\nupper: *p\n", "anchor"),
        ("{person: anna.jpg, person: ben.jpg, upper: shirt.jpg}", "again"),
        ("? [a, b]\n: c\n", "cannot be a key"),
        ("person: *.jpg\nupper: shirt.jpg\n", "not valid YAML"),
        ("person:\n\tanna.jpg", "not valid YAML"),
        ("person: [anna.jpg", "not valid YAML"),
        ('person: "\\UFFFFFFFF"', "not valid YAML"),
        (SHORT + "---\n" + SHORT, "second document"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not UTF-8"),
        (b"person: a\0b", "cannot be shown"),
        (b"person: \x07", "cannot be shown"),
        (SHORT.encode("utf-16"), "UTF-16"),
        (SHORT.encode("utf-16-be"), "UTF-16"),
        (SHORT.encode("utf-32"), "UTF-16"),
        ("person: zoë.jpg".encode("latin-1"), "not UTF-8"),
        ("# " + "x" * MAX_BYTES, "larger than 256 KB"),
        ("- a\n" * 1_000_000, "larger than 256 KB"),
    ],
)
def test_yaml_that_means_harm_or_is_none(text: str | bytes, word: str) -> None:
    assert any(word in fault.message for fault in faults_of(text))


def test_the_fix_for_an_unquoted_pattern_says_quotes() -> None:
    for text in ("people: [*.jpg]\nupper: shirt.jpg", "people: [*anna]\nupper: shirt.jpg"):
        assert "quotes" in faults_of(text)[0].fix


def test_a_byte_order_mark_and_windows_line_ends_are_fine() -> None:
    assert read(b"\xef\xbb\xbf" + SHORT.replace("\n", "\r\n").encode()).looks == read(SHORT).looks


def test_the_line_of_broken_text_is_told() -> None:
    assert only_fault(b"person: anna.jpg\nupper: \xff\n").line == 2
    assert only_fault("person: anna.jpg\nupper: [shirt.jpg\nlower: x\n").line in (2, 3)


def test_a_flood_of_faults_is_cut() -> None:
    faults = faults_of("\n".join(f"k{number}: a" for number in range(5000)))
    assert len(faults) == MAX_FAULTS + 1 and "more faults" in faults[-1].message
    assert all(len(str(fault)) < 400 for fault in faults_of(f"'{'k' * 200_000}': a"))


KEYS = ("person", "people", "looks", "upper", "dress", "bag", "steps", "seed", "guidance", "mask", "format", "<<", "x")
SCALARS = st.one_of(
    st.sampled_from((*NAMES, "*", "a*", "no", "010", "~", "", "../x", ".a", "é", "1e9", "'", '"', "&a", "*a", "!!x")),
    st.text(max_size=8),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | SCALARS, inner, max_size=5),
    max_leaves=12,
)


def flow(tree: object) -> str:
    """YAML in flow style, of which nothing is escaped."""
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key}: {flow(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(flow, tree)) + "]"
    return str(tree)


def survives(text: bytes) -> None:
    """Whatever it is: a manifest that keeps its promises, or faults in words; soon."""
    began_s = time.thread_time()
    try:
        manifest = read(text)
    except ManifestError as error:
        assert error.faults and str(error).isprintable()
    else:
        assert len({look.key.casefold() for look in manifest.looks}) == len(manifest.looks)
        for name in manifest.files:
            assert "/" not in name and not name.startswith(".") and name.isprintable()
        assert {look.person for look in manifest.looks} <= set(manifest.files)
        assert set(manifest.files) - set(NAMES) <= set(manifest.missing)
    assert time.thread_time() - began_s < honest_s()


@settings(max_examples=150, derandomize=True, deadline=None, database=None)
@given(TREES)
def test_any_tree(tree: object) -> None:
    survives(flow(tree).encode("utf-8", "surrogatepass"))
    if isinstance(tree, dict):
        survives("\n".join(f"{key}: {flow(value)}" for key, value in tree.items()).encode("utf-8", "surrogatepass"))


@settings(max_examples=150, derandomize=True, deadline=None, database=None)
@given(st.binary(max_size=40) | st.text("{}[]:,-?&*!|>'\"%@`# \n\ta0\\<.", max_size=40).map(str.encode))
def test_any_bytes(data: bytes) -> None:
    survives(data)
    survives(SHORT.encode() + data)


@pytest.mark.parametrize(
    "name", ["花子\u30001.jpg", "Screenshot at 3.14\u202fPM.png", "a\u00a0b.jpg", "👩\u200d💻.jpg", "می\u200cروم.jpg"]
)
def test_names_with_spaces_and_joiners_of_other_scripts_are_names(name: str) -> None:
    assert read(f'person: "{name}"\nupper: shirt.jpg\n', (name, "shirt.jpg")).missing == ()


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r", "\x85", "\u2028", "\u2029"], ids=ascii)
def test_a_fault_is_named_by_its_line_whatever_ends_lines(ending: str) -> None:
    text = f'people: ["*.jpg{ending * 7}"]\nlooks:\n  gala: {{n.webp,upper steps: 40, a: {{b,c'
    for fault in faults_of(text):
        assert fault.line > 0
