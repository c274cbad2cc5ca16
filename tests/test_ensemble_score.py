"""Batch scoring: one row an input, an answer or a reason, whatever happens on the way."""

import io
import os
import pickle
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from ensemble.combine import combine
from ensemble.inputs import case_ids_of, read_inputs
from ensemble.parts import Parts, PartsError, write_part
from ensemble.predictor import Predictor
from ensemble.registry import Registry
from preprocessing.limits import MAX_BYTES
from preprocessing.source import SourceError
from preprocessing.storage import as_path
from tests import dicom_files
from tests.ensemble_fixtures import make_cohort, make_study


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("score")
    registry = Registry(root / "registry")
    version = registry.publish(combine(make_study(root / "study", make_cohort(root / "cohort"))).write).version
    return registry.resolve(version)


def pictures(folder, names=("a.png", "sub/b.png", "c.png")):
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), rng.integers(0, 256, (80, 60)).astype(np.uint8))
    return folder


def row(index: int, **values):
    return {"case_id": str(index), "file": f"{index}.png", "predicted_months": float(index), "reason": None} | values


def test_a_folder_is_every_picture_below_it(tmp_path):
    inputs = read_inputs(pictures(tmp_path), sex="male")
    assert inputs.files == ("a.png", "c.png", "sub/b.png")
    assert inputs.case_ids == ("a", "c", "b")
    assert set(inputs.sexes) == {"male"}


FILES = ("DICOMDIR", "a.jpg", "c", "d.jpe", "e.jfif", "masks/b.jpg", "note.txt", "x.gif")


@pytest.mark.parametrize("place", ["local", "memory://every-file/in"])
def test_every_file_of_a_folder_that_is_not_hidden_is_an_input(tmp_path, place):
    folder = tmp_path if place == "local" else as_path(place)
    for name in (*FILES, ".DS_Store", ".cache/f.png", "masks/._b.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert read_inputs(folder).files == FILES


def test_the_mask_of_a_picture_is_no_input_and_a_radiograph_among_masks_is_one(tmp_path):
    pictures(tmp_path, ("hands/1.png", "masks/1.png", "masks/2.png"))
    inputs = read_inputs(tmp_path)
    assert (inputs.files, inputs.case_ids) == (("hands/1.png", "masks/2.png"), ("1", "2"))
    assert inputs.num_masks == 1


def test_a_link_is_an_input_and_a_folder_that_cannot_be_listed_an_error(tmp_path, monkeypatch):
    pictures(tmp_path, ("sub/a.png", "closed/b.png"))
    (tmp_path / "folder").symlink_to(tmp_path / "sub")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert read_inputs(tmp_path).files == ("closed/b.png", "folder", "gone", "sub/a.png")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)  # root may list everything
    with pytest.raises(PermissionError, match="closed"):
        read_inputs(tmp_path)


@pytest.mark.parametrize(
    ("files", "case_ids"),
    [
        (("10097.jpg", "sub/10098.jpg"), ("10097", "10098")),
        (("10097.jpg", "sub/10097.jpg", "x.png"), ("10097.jpg", "sub/10097.jpg", "x")),
        (("1.json", "1.png"), ("1.json", "1")),
        (("1.jpg", "1.png"), ("1.jpg", "1.png")),
        (("1", "1.png"), ("1", "1.png")),
        (("a/IM1", "b/IM1"), ("a/IM1", "b/IM1")),
        (("1.png", "1.png.dcm", "a/1.png"), ("1.png", "1.png.dcm", "a/1.png")),
    ],
)
def test_ids_tell_files_apart_and_are_names_where_these_do(files, case_ids):
    assert case_ids_of(files) == case_ids


def test_unfinished_parts_beside_the_radiographs_are_no_inputs(tmp_path):
    pictures(tmp_path, ("a.png",))
    write_part(Parts(tmp_path / "out.parquet", {}).folder, 0, [row(0)])
    assert read_inputs(tmp_path).files == ("a.png",)


def test_a_table_names_files_and_uris_and_loses_no_row(tmp_path):
    (tmp_path / "batch.csv").write_text("id,path,sex\n1,a.png,F\n2,s3://bucket/x.dcm,\n3,,male\n")
    inputs = read_inputs(tmp_path / "batch.csv")
    assert inputs.files == ("a.png", "s3://bucket/x.dcm", "")
    assert inputs.sexes == ("female", "", "male")
    locations = [location for location, *_ in inputs.chunk(0, 3)]
    assert locations == [str(tmp_path / "a.png"), "s3://bucket/x.dcm", ""]


def test_a_table_that_says_another_sex_is_refused(tmp_path):
    (tmp_path / "batch.csv").write_text("path,sex\na.png,unclear\n")
    with pytest.raises(SourceError, match="line 2: the sex must be male, female or empty"):
        read_inputs(tmp_path / "batch.csv")


def test_parts_become_one_table_in_the_order_of_the_inputs(tmp_path):
    parts = Parts(tmp_path / "out.parquet", {"bundle": "x"})
    write_part(parts.folder, 2, [row(2), row(3, predicted_months=None, reason="blank")])
    assert parts.missing(4) == [(0, 2)]
    write_part(parts.folder, 0, [row(0), row(1)])
    assert parts.finish(4) == {"": 3, "blank": 1}
    assert pd.read_parquet(tmp_path / "out.parquet")["case_id"].tolist() == ["0", "1", "2", "3"]
    assert not parts.folder.exists()


def test_parts_on_an_object_store_become_one_object_there():
    out = as_path("memory://batch/out.parquet")
    parts = Parts(out, {"bundle": "x"})
    write_part(parts.folder, 1, [row(1)])
    assert Parts(out, {"bundle": "x"}).missing(2) == [(0, 1)]
    write_part(parts.folder, 0, [row(0)])
    assert parts.finish(2) == {"": 2}
    assert pd.read_parquet(io.BytesIO(out.read_bytes()))["case_id"].tolist() == ["0", "1"]
    assert [path.name for path in out.parent.iterdir()] == ["out.parquet"]


def test_a_table_with_a_gap_is_not_finished(tmp_path):
    parts = Parts(tmp_path / "out.parquet", {})
    write_part(parts.folder, 0, [row(0)])
    with pytest.raises(PartsError, match="inputs 1 to 2 have no row"):
        parts.finish(3)
    assert not (tmp_path / "out.parquet").exists()


def test_parts_of_another_bundle_are_not_mixed_in(tmp_path):
    Parts(tmp_path / "out.parquet", {"bundle": "x", "profile": "full"})
    Parts(tmp_path / "out.parquet", {"bundle": "x", "profile": "full"})
    with pytest.raises(PartsError, match="its bundle differs"):
        Parts(tmp_path / "out.parquet", {"bundle": "y", "profile": "full"})


def test_each_row_is_answered_as_the_predictor_answers_it_or_says_why_not(bundle, tmp_path):
    from ensemble.score import _reading, answer

    predictor = Predictor(bundle)
    pictures(tmp_path, ("a.png",))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    rows = [
        {
            "case_id": name,
            "file": name,
            "sex": "male",
            "sex_from": "caller",
            "chronological_age_months": None,
            "reading": _reading(predictor.reader, place),
        }
        for name, place in (
            ("bad", str(tmp_path / "bad.png")),
            ("a", str(tmp_path / "a.png")),
            ("gone", "/no/such"),
            ("-", ""),
        )
    ]
    found = answer(predictor, rows)
    assert [row["reason"] for row in found] == ["unsupported_format", None, "unreadable", "missing_image"]
    alone = predictor.score((tmp_path / "a.png").read_bytes(), "male")
    assert found[1]["predicted_months"] == pytest.approx(alone.bone_age_months, abs=1e-3)
    assert all((row["predicted_months"] is None) == (row["reason"] is not None) for row in found)


def test_what_is_no_radiograph_says_why(bundle, tmp_path):
    from ensemble.score import _reading

    (tmp_path / "note.txt").write_text("no picture")
    (tmp_path / "x.gif").write_bytes(b"GIF89a" + bytes(60))
    (tmp_path / "DICOMDIR").write_bytes(dicom_files.index())
    (tmp_path / "folder").symlink_to(tmp_path)
    with (tmp_path / "archive.zip").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    reader = Predictor(bundle).reader
    found = {path.name: _reading(reader, str(path)) for path in tmp_path.iterdir()}
    assert {name: reason for name, (reason, _) in found.items()} == {
        "note.txt": "unsupported_format",
        "x.gif": "unsupported_format",
        "DICOMDIR": "unsupported_format",
        "folder": "unreadable",
        "archive.zip": "too_large",
    }
    assert "index of a folder" in found["DICOMDIR"][1]
    assert "link" in found["folder"][1]


def test_a_name_that_is_no_utf_8_has_its_row(tmp_path):
    from ensemble.score import _told

    (tmp_path / os.fsdecode(b"\xe9.png")).write_bytes(b"no picture")
    (told,) = _told(read_inputs(tmp_path), 0, 1)
    assert Path(told.pop("location")).exists()
    write_part(tmp_path, 0, [told])
    (found,) = pd.read_parquet(tmp_path / "000000000-000000001.parquet").to_dict("records")
    assert (found["case_id"], found["file"]) == (r"\udce9", r"\udce9.png")


def answered(bundle, tmp_path, **row):
    """The row of one picture, as the table of `score` holds it."""
    from ensemble.score import _reading, answer

    predictor = Predictor(bundle)
    pictures(tmp_path, ("a.png",))
    place = str(tmp_path / "a.png")
    told = {"case_id": "a", "file": "a.png", "sex": "", "sex_from": "", "chronological_age_months": None} | row
    write_part(tmp_path, 0, answer(predictor, [told | {"reading": _reading(predictor.reader, place)}]))
    (found,) = pd.read_parquet(tmp_path / "000000000-000000001.parquet").to_dict("records")
    return found, predictor.score((tmp_path / "a.png").read_bytes(), row.get("sex"))


def test_of_an_unknown_sex_both_answers_stand_beside_the_mixture(bundle, tmp_path):
    found, alone = answered(bundle, tmp_path)
    for sex in ("female", "male"):
        assert found[f"if_{sex}_months"] == pytest.approx(alone.by_sex[sex].bone_age_months, abs=1e-3)
        ends = [found[f"if_{sex}_{end}_90"] for end in ("low", "high")]
        assert ends == pytest.approx(alone.by_sex[sex].intervals[90], abs=1e-3)
    share = found["male_probability"]
    mixture = share * found["if_male_months"] + (1 - share) * found["if_female_months"]
    assert found["predicted_months"] == pytest.approx(mixture, abs=1e-3)


def test_a_known_sex_has_one_answer_which_is_judged_by_the_chronological_age(bundle, tmp_path):
    found, alone = answered(bundle, tmp_path, sex="male", chronological_age_months=120.0)
    judged = alone.beside(120.0, "male").chronology
    assert (found["status"], found["norms"]) == (judged.status, judged.source)
    assert found["sds"] == pytest.approx(judged.sds, abs=1e-3)
    assert np.isnan([found["if_male_months"], found["male_probability"]]).all()


def test_an_age_that_contradicts_the_header_is_told_of_as_everywhere_else(bundle, tmp_path):
    from ensemble.score import _reading, answer

    predictor = Predictor(bundle)
    picture = np.random.default_rng(0).integers(0, 256, (80, 60)).astype(np.uint8)
    (tmp_path / "a.dcm").write_bytes(data := dicom_files.dicom(picture))  # of a girl of ten
    reading = _reading(predictor.reader, str(tmp_path / "a.dcm"))
    told = {"case_id": "a", "file": "a.dcm", "sex": "female", "sex_from": "caller", "reading": reading}
    for months in (120.0, 180.0):
        (found,) = answer(predictor, [told | {"chronological_age_months": months}])
        alone = predictor.score(data, "female", chronological_age_months=months)
        assert found["warnings"] == " ".join(warning.message for warning in alone.warnings)
        assert ("age given is 180 months, the DICOM header says 120" in found["warnings"]) == (months == 180)


def test_a_table_tells_chronological_ages_in_its_unit_and_those_that_no_child_has_are_refused(tmp_path):
    place = tmp_path / "batch.csv"
    place.write_text("path,age_years\na.png,10\nb.png,\nc.png,12.5\n")
    assert read_inputs(place).ages == (120.0, None, 150.0)
    for age, sentence in (("250", "within 0..240 months, got 250"), ("ten", "'ten' cannot be")):
        place.write_text(f"path,chronological_age_months\na.png,{age}\n")
        with pytest.raises(SourceError, match=f"line 2: .*{sentence}"):
            read_inputs(place)


def test_parts_of_a_release_with_other_columns_are_not_mixed_in(tmp_path):
    folder = Parts(tmp_path / "out.parquet", {"bundle": "x"}).folder
    (folder / "plan.json").write_text('{"bundle": "x"}')
    with pytest.raises(PartsError, match="its columns differs"):
        Parts(tmp_path / "out.parquet", {"bundle": "x"})


@pytest.fixture
def without_ray(monkeypatch):
    """The two steps of a batch, one chunk after the other in this process."""
    from ensemble import score as scoring

    def scored(bundle, inputs, parts, chunks, profile, device):
        scorer = scoring._Scorer(bundle.location, str(parts.folder), profile, device)
        for start, stop in chunks:
            chunk = {"start": start, "rows": pickle.dumps(scoring._told(inputs, start, stop))}
            yield scorer(scoring._read(chunk, location=bundle.location))

    monkeypatch.setattr(scoring, "_scored", scored)
    monkeypatch.setattr(scoring.ray, "is_initialized", lambda: True)
    yield scoring
    scoring._reader.cache_clear()


def failing(times, error, function):
    """A function that fails `times` times before it does what it should."""
    calls = iter(range(times))

    def call(*arguments, **options):
        if next(calls, None) is not None:
            raise error
        return function(*arguments, **options)

    return call


@pytest.mark.parametrize("name", ["_reader", "Predictor", "write_part"])
def test_an_error_that_is_no_files_fault_ends_a_batch_which_goes_on(bundle, tmp_path, monkeypatch, without_ray, name):
    inputs, out = read_inputs(pictures(tmp_path / "in"), sex="male"), tmp_path / "out.parquet"
    with monkeypatch.context() as patch:
        cause = failing(2, OSError(28, "No space left on device"), getattr(without_ray, name))
        cause.cache_clear = lambda: None
        patch.setattr(without_ray, name, cause)
        with pytest.raises(
            without_ray.ScoreError, match=r"^a.png could .*: on .*, \[Errno 28\] No space .* \(OSError\). Mend that"
        ):
            without_ray.score(bundle, inputs, out)
    assert not out.exists()
    assert without_ray.score(bundle, inputs, out) == {"": 3}


def test_a_store_that_a_machine_has_no_driver_for_is_told_of(bundle, without_ray):
    scorer = without_ray._Scorer(bundle.location, "nosuch://bucket/parts", "full", "cpu")
    said = scorer({"start": 0, "rows": pickle.dumps([]), "error": ""})
    assert said["num_rows"] == 0
    assert re.match(r"on .*nosuch.* \(\w+Error\)$", said["error"])


def test_an_error_that_passes_is_no_end_and_one_that_stays_stops_at_once(bundle, tmp_path, monkeypatch, without_ray):
    inputs = read_inputs(pictures(tmp_path / "in", tuple(f"{index:02d}.png" for index in range(12))), sex="male")
    monkeypatch.setattr(without_ray, "CHUNK", 1)
    write = failing(8, OSError("gone for a moment"), write_part)
    monkeypatch.setattr(without_ray, "write_part", write)
    assert without_ray.score(bundle, inputs, tmp_path / "out.parquet") == {"": 12}
    monkeypatch.setattr(without_ray, "write_part", failing(99, OSError("gone"), write_part))
    with pytest.raises(without_ray.ScoreError, match=r"^08\.png could not be scored"):
        without_ray.score(bundle, inputs, tmp_path / "another.parquet")


@pytest.mark.ray
@pytest.mark.slow
def test_a_batch_goes_on_where_it_stopped_and_drops_nothing(bundle, tmp_path):
    from ensemble.score import score

    folder = pictures(tmp_path / "in", tuple(f"{index}.png" for index in range(40)))
    (folder / "39.png").write_bytes(b"no picture")
    inputs = read_inputs(folder, sex="female")
    plan = {"bundle": bundle.version, "profile": "full", "inputs": inputs.hash, "num_inputs": 40}
    write_part(Parts(tmp_path / "out.parquet", plan).folder, 0, [row(i, detail="of the first run") for i in range(10)])
    counts = score(bundle, inputs, tmp_path / "out.parquet")
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert sum(counts.values()) == len(table) == 40
    assert (table["detail"] == "of the first run").sum() == 10
    assert table["predicted_months"].notna().sum() == 39


@pytest.mark.ray
@pytest.mark.slow
def test_a_bundle_out_of_a_workers_reach_ends_a_batch_with_a_sentence(bundle, tmp_path):
    from ensemble.score import ScoreError, score

    folder, out = pictures(tmp_path / "in"), tmp_path / "out.parquet"
    with pytest.raises(ScoreError, match="nowhere is not a bundle"):
        score(replace(bundle, location=str(tmp_path / "nowhere")), read_inputs(folder, sex="female"), out)
    assert not out.exists()
    assert score(bundle, read_inputs(folder, sex="female"), out) == {"": 3}


@pytest.mark.ray
@pytest.mark.faults
def test_a_file_that_kills_its_reader_costs_its_own_row_alone(bundle, tmp_path, monkeypatch):
    from ensemble import score as scoring

    folder = pictures(tmp_path / "in", tuple(f"{index:02d}.png" for index in range(40)))

    def deadly(chunk, *, location):  # defined in here, it travels to the workers by value
        import os
        import pickle
        import signal

        from ensemble.score import _read

        if any(row["file"] == "13.png" for row in pickle.loads(chunk["rows"])):
            os.kill(os.getpid(), signal.SIGKILL)
        return _read(chunk, location=location)

    monkeypatch.setattr(scoring, "_read", deadly)
    counts = scoring.score(bundle, read_inputs(folder, sex="female"), tmp_path / "out.parquet")
    assert counts == {"": 39, "worker_died": 1}
    table = pd.read_parquet(tmp_path / "out.parquet").set_index("file")
    assert table["predicted_months"].isna().sum() == 1
    assert table.loc["13.png", "reason"] == "worker_died"
    assert (table["version"] == bundle.version).all()
