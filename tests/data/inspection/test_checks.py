"""Leaks, imbalance and outliers: found where they are planted, and nothing where they are not."""

from hfvla.data.inspection.checks import check_sets, normalised, read_set
from hfvla.data.inspection.finding import ReadData
from hfvla.data.inspection.splitting import checked_sets

from .sets import box, data_of, encoded, rows_of, sample, scene


def checked(name, samples):
    return read_set(name, rows_of(samples), range(len(samples)))


def status(findings, check):
    return {one.check: one for one in findings if one.check == check}[check]


CLEAN = [sample(n, encoded(scene(n))) for n in range(30)]
HELD = [sample(n, encoded(scene(n))) for n in range(100, 130)]


def test_sets_without_anything_in_common_pass():
    findings = check_sets([checked("train", CLEAN)], [checked("held", HELD)])
    assert not [one for one in findings if one.status != "ok"], findings
    assert {one.check for one in findings} >= {"groups", "equal pictures", "nearly equal pictures"}


def test_an_equal_picture_under_another_name_is_found():
    again = [*HELD, sample(200, encoded(scene(7)))]
    found = status(check_sets([checked("train", CLEAN)], [checked("held", again)]), "equal pictures")
    assert (found.status, found.count, found.found) == ("fail", 1, "s7 = s200")


def test_a_smaller_jpeg_of_a_picture_is_found_as_nearly_equal():
    again = [*HELD, sample(200, encoded(scene(7).resize((60, 40)), "JPEG", quality=80))]
    findings = check_sets([checked("train", CLEAN)], [checked("held", again)])
    found = status(findings, "nearly equal pictures")
    assert (found.status, found.count, found.found) == ("fail", 1, "s7 ~ s200")
    assert status(findings, "equal pictures").status == "ok"


def test_a_group_on_both_sides_is_found():
    again = [*HELD, sample(200, encoded(scene(200)), group="made/3")]
    found = status(check_sets([checked("train", CLEAN)], [checked("held", again)]), "groups")
    assert (found.status, found.count, found.found) == ("fail", 1, "made/3")


def test_an_equal_question_leaks_about_the_same_picture_alone():
    train = [*CLEAN, sample(31, encoded(scene(31)), "What colour is it?")]
    other = [*HELD, sample(200, encoded(scene(200)), "what colour is it")]
    findings = check_sets([checked("train", train)], [checked("held", other)])
    assert status(findings, "equal questions about the same").status == "ok"
    assert status(findings, "equal questions").count == 1
    same = [*HELD, sample(200, encoded(scene(31)), "what colour, is it")]
    findings = check_sets([checked("train", train)], [checked("held", same)])
    found = status(findings, "equal questions about the same")
    assert (found.status, found.found) == ("fail", "s31 = s200")


def test_an_equal_question_without_pictures_leaks():
    train, held = [sample(1, None, "Who wrote it?")], [sample(2, None, "who wrote it")]
    findings = check_sets([checked("train", train)], [checked("held", held)])
    assert status(findings, "equal questions about the same").status == "fail"


def test_official_splits_of_one_path_are_compared():
    samples = [*CLEAN, sample(200, encoded(scene(7)), split="val")]
    sets = checked_sets(ReadData("here", "made", data_of(samples)), 1000)
    assert [one.name for one in sets] == ["here [train]", "here [val]"]
    assert status(check_sets(sets, []), "equal pictures").status == "fail"
    assert len(checked_sets(ReadData("here", "made", data_of(samples)), 1000, whole=True)) == 1
    assert sum(len(one.names) for one in checked_sets(ReadData("here", "made", data_of(samples)), 10)) == 10


def test_one_answer_to_most_questions_is_said():
    samples = [sample(n, None, answer="yes" if n % 4 else f"no {n % 8}") for n in range(40)]
    found = status(check_sets([checked("train", samples)], []), "class balance")
    assert found.status == "warn" and "'yes' is 75.0% of 40 answers" in found.found and "kind 'vqa'" in found.where
    even = [sample(n, None, answer="yes" if n % 2 else "no") for n in range(40)]
    assert status(check_sets([checked("train", even)], []), "class balance").status == "ok"


def test_outliers_are_named():
    samples = [*CLEAN, sample(50, encoded(scene(50, (400, 20)))), sample(51, None, answer="word " * 500)]
    samples += [sample(60 + n, encoded(scene(60 + n)), boxes=(box(),)) for n in range(30)]
    samples.append(sample(99, encoded(scene(99)), boxes=(box(xyxy=(0.0, 0.0, 96.0, 64.0)),)))
    found = [one.found for one in check_sets([checked("train", samples)], []) if one.check == "outliers"]
    assert any("words of a row" in text and "s51 (504)" in text for text in found), found
    assert any("longer over shorter side" in text and "s50 (20)" in text for text in found), found
    assert any("share of the picture" in text and "s99 (1)" in text for text in found), found


def test_a_picture_that_cannot_be_read_fails():
    found = status(check_sets([checked("train", [sample(1, b"no picture")])], []), "pictures")
    assert found.status == "fail" and "s1" in found.found


def test_rows_of_one_name_are_said():
    found = status(check_sets([checked("train", [sample(1, None), sample(1, None)])], []), "names")
    assert found.status == "warn" and "s1" in found.found


def test_texts_are_compared_without_case_and_punctuation():
    assert normalised("  What, is THIS? ") == normalised("what is\tthis") == "what is this"
