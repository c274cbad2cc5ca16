"""The command line: one sentence and a status for what is wrong, and JSON that is only JSON."""

import json

import pytest
import torch

from ensemble.__main__ import main
from tests.ensemble_fixtures import make_cohort, make_study


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A study that was built into a registry."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("main")
    make_study(root / "study", make_cohort(root / "cohort"))
    assert main(["build", str(root / "study"), str(root / "registry")]) == 0
    return root


def test_building_twice_says_that_there_is_nothing_to_do(folders, capsys):
    assert main(["build", str(folders / "study"), str(folders / "registry")]) == 0
    assert "is published already, with the same content: nothing to do" in capsys.readouterr().out


def test_build_prints_what_it_published(folders, tmp_path, capsys):
    assert main(["build", str(folders / "study"), str(tmp_path / "new"), "--max-members", "1"]) == 0
    out = capsys.readouterr().out
    assert "published ens-" in out
    assert "champion is now ens-" in out


def test_json_is_the_only_thing_on_standard_output(folders, capsys):
    assert main(["evaluate", str(folders / "registry"), str(folders / "cohort"), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["n"] == 6
    assert "radiographs predicted" in captured.err


def test_predictions_are_written_one_row_a_case(folders, tmp_path):
    out = tmp_path / "predictions.csv"
    main(["evaluate", str(folders / "registry"), str(folders / "cohort"), "--predictions", str(out)])
    lines = out.read_text().splitlines()
    assert len(lines) == 7
    assert "predicted_months" in lines[0]


def test_a_bundle_folder_is_evaluated_like_its_registry(folders, capsys):
    (bundle,) = (folders / "registry" / "bundles").iterdir()
    main(["evaluate", str(bundle), str(folders / "cohort"), "--json"])
    direct = json.loads(capsys.readouterr().out)
    main(["evaluate", str(folders / "registry"), str(folders / "cohort"), "--json", "--version", bundle.name])
    named = json.loads(capsys.readouterr().out)
    assert named.pop("locked_test")["reading"] == direct.pop("locked_test")["reading"] + 1
    assert direct == named


def test_a_cohort_that_the_bundle_does_not_come_from_is_pointed_out(folders, tmp_path, capsys):
    other = make_cohort(tmp_path / "other", seed=1)
    assert main(["evaluate", str(folders / "registry"), str(other), "--json"]) == 0
    assert "not the cohort that the bundle was trained on" in capsys.readouterr().err


def test_the_report_is_one_file(folders, tmp_path, capsys):
    out = tmp_path / "page.html"
    arguments = ["--study", str(folders / "study"), "--cohort", str(folders / "cohort"), "--out", str(out)]
    assert main(["report", str(folders / "registry"), *arguments]) == 0
    assert out.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["build", "{root}/nothing", "{tmp}/registry"], "study.json is missing"),
        (["build", "{root}/study", "{tmp}/registry", "--alias", "no good"], "An alias is a word"),
        (["build", "{root}/study", "{tmp}/registry", "--max-members", "0"], "1 member or more"),
        (["evaluate", "{root}/nothing", "{root}/cohort"], "does not exist"),
        (["evaluate", "{tmp}", "{root}/cohort"], "python -m ensemble build"),
        (["evaluate", "{root}/registry", "{root}/nothing"], "not a folder"),
        (["evaluate", "{root}/registry", "{tmp}"], "exactly one CSV"),
        (["evaluate", "{root}/registry", "{root}/cohort", "--version", "v2"], "no bundle 'v2'"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(folders, tmp_path, capsys, arguments, sentence):
    assert main([word.format(root=folders, tmp=tmp_path) for word in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert sentence in captured.err


def test_nothing_is_published_when_the_alias_is_refused(folders, tmp_path):
    main(["build", str(folders / "study"), str(tmp_path / "registry"), "--alias", "NO"])
    assert not (tmp_path / "registry").exists()


def test_list_show_and_remove_speak_of_the_same_bundle(folders, tmp_path, capsys):
    registry = str(tmp_path / "registry")
    main(["build", str(folders / "study"), registry])
    main(["build", str(folders / "study"), registry, "--max-members", "1", "--alias", "small"])
    capsys.readouterr()
    assert main(["list", registry]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    versions = [line.split()[0] for line in lines]
    assert [line.split()[-1] for line in lines] == ["champion", "small"]
    assert main(["show", registry, "--version", "small"]) == 0
    assert capsys.readouterr().out.startswith(f"{versions[1]}: every file is what its manifest says")
    assert main(["remove", registry, versions[0]]) == 2
    assert "is champion: move that alias first" in capsys.readouterr().err
    main(["build", str(folders / "study"), registry, "--max-members", "1"])
    assert f"champion stays {versions[0]}" in capsys.readouterr().out
    assert main(["promote", registry, versions[1]]) == 2
    assert f"python -m ensemble stress {registry}@{versions[1]} SOURCE" in capsys.readouterr().err
    assert main(["promote", registry, versions[1], "--regardless", "a test"]) == 0
    assert main(["remove", registry, versions[0]]) == 0
    assert main(["rollback", registry]) == 2
    assert "nothing to go back to" in capsys.readouterr().err


REPORT = ["report", "--study", "{root}/study", "--cohort", "{root}/cohort", "--out", "{tmp}/r"]


@pytest.mark.parametrize("command", [["show"], ["card"], REPORT])
@pytest.mark.parametrize("named", ["{registry}@champion", "{bundle}"])
def test_whatever_asks_for_a_bundle_takes_a_name_in_its_registry_or_its_folder(
    folders, tmp_path, capsys, command, named
):
    (bundle,) = (folders / "registry" / "bundles").iterdir()
    word = named.format(registry=folders / "registry", bundle=bundle)
    assert main([command[0], word, *(part.format(root=folders, tmp=tmp_path) for part in command[1:])]) == 0
    assert bundle.name in capsys.readouterr().out + "".join(path.read_text() for path in tmp_path.glob("r"))


def test_a_table_of_predictions_is_evaluated_and_compared_like_its_bundle(folders, tmp_path, capsys):
    registry, cohort, out = str(folders / "registry"), str(folders / "cohort"), tmp_path / "predictions.csv"
    main(["evaluate", registry, cohort, "--json", "--predictions", str(out)])
    of_bundle = json.loads(capsys.readouterr().out)
    main(["evaluate", str(out), "--json"])
    of_table = json.loads(capsys.readouterr().out)
    assert of_table["mae_ci95"] == of_bundle["mae_ci95"]
    assert main(["compare", f"{registry}@champion", str(out), cohort, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["n"], report["mae_difference_months"]) == (6, 0)


def test_an_evaluation_is_written_with_its_drawings(folders, tmp_path, capsys):
    main(["evaluate", str(folders / "registry"), str(folders / "cohort"), "--out", str(tmp_path / "out")])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"report.json", "cases.csv", "rejected.csv", "bland_altman.png", "confusion.png", "agreement.png"}


def test_the_card_says_what_the_bundle_is_for_is_made_of_and_has_shown(folders, tmp_path, capsys):
    registry, out = str(folders / "registry"), tmp_path / "out"
    main(["evaluate", registry, str(folders / "cohort"), "--out", str(out)])
    capsys.readouterr()
    assert main(["card", registry, "--evaluation", str(out / "report.json")]) == 0
    card = capsys.readouterr().out
    assert all(word in card for word in ("Not for clinical use", "test_resnet", "Measured on 6 cases", "cohort `"))
    report = json.loads((out / "report.json").read_text())
    (out / "report.json").write_text(json.dumps(report | {"ages": {"doubtful": 1, "says": "An age cannot be."}}))
    assert main(["card", registry, "--evaluation", str(out / "report.json")]) == 0
    assert "\nAn age cannot be.\n" in capsys.readouterr().out
    report |= {"bundle": "ens-0123456789ab"}
    (out / "report.json").write_text(json.dumps(report))
    assert main(["card", registry, "--evaluation", str(out / "report.json")]) == 2
    assert "The evaluation is of ens-0123456789ab" in capsys.readouterr().err


@pytest.mark.parametrize(("content", "sentence"), [("[1]", "no report"), ("{}", "no report"), (None, "KeyError: 'n'")])
def test_a_report_of_another_shape_is_no_evaluation_for_a_card(folders, tmp_path, capsys, content, sentence):
    (bundle,) = (folders / "registry" / "bundles").iterdir()
    report = tmp_path / "report.json"
    report.write_text(content or json.dumps({"bundle": bundle.name}))
    assert main(["card", str(bundle), "--evaluation", str(report)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"ensemble: {report} is ")
    assert sentence in captured.err


def test_a_broken_bundle_or_record_is_named_and_hides_no_other(folders, tmp_path, capsys):
    registry = tmp_path / "registry"
    main(["build", str(folders / "study"), str(registry)])
    main(["build", str(folders / "study"), str(registry), "--max-members", "1", "--alias", "small"])
    capsys.readouterr()
    main(["list", str(registry)])
    whole, broken = (line.split()[0] for line in capsys.readouterr().out.splitlines()[1:])
    manifest, record = registry / "bundles" / broken / "manifest.json", registry / "changes" / "000000001.json"
    manifest.write_text("{}")
    record.write_text("[]")
    assert main(["list", str(registry)]) == 0
    captured = capsys.readouterr()
    lines = {line.split()[0]: line.split()[-2:] for line in captured.out.splitlines()[1:]}
    assert lines == {whole: ["3", "champion"], broken: ["broken", "small"]}
    assert f"{record} is no record of a change" in captured.err
    assert f"{manifest} is no manifest of a bundle" in captured.err
