"""Figures of a table of predictions, and predictions of other systems."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ensemble import card
from ensemble.__main__ import main
from ensemble.chronology import read_norms
from ensemble.compare import compare
from ensemble.evaluate import evaluate_table
from ensemble.measures import figures, styles
from ensemble.parts import SCHEMA
from ensemble.predictions import read_predictions
from ensemble.printed import evaluation_text
from ensemble.significance import clinically_significant
from preprocessing.source import SourceError, SourceOptions

ENDS = (("low", -1), ("high", 1))


def cases(num_cases: int = 40, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    actual_C = rng.uniform(20, 200, num_cases).round(1)
    return pd.DataFrame(
        {
            "case_id": [f"{index:03d}" for index in range(num_cases)],
            "sex": np.where(np.arange(num_cases) % 2, "male", "female"),
            "is_male": np.arange(num_cases) % 2 == 1,
            "bone_age_months": actual_C,
            "predicted_months": (actual_C + rng.normal(2, 8, num_cases)).clip(0, 239),
        }
    )


def test_an_error_is_significant_where_it_changes_the_class_at_the_chronological_age():
    chronological_C = np.full(4, 120.0)  # boys: two standard deviations are 22.8 months
    actual_C, predicted_C = np.array([120.0, 120, 150, 150]), np.array([142.0, 143, 144, 142])
    wrong_C = clinically_significant(actual_C, predicted_C, np.ones(4, bool), chronological_C)
    assert wrong_C.tolist() == [False, True, False, True]


def test_without_a_chronological_age_the_reference_stands_for_it():
    unknown_C = np.array([np.nan, np.nan])
    wrong_C = clinically_significant(np.array([120.0, 120]), np.array([142.0, 143]), np.ones(2, bool), unknown_C)
    assert wrong_C.tolist() == [False, True]


def norms(text: str):
    return read_norms(f"sex,age_months,mean_months,sd_months,source\n{text}".encode())


def test_an_error_is_significant_by_the_norms_that_judge_the_answer():
    wide = norms("male,12,12,20,Site\nmale,216,216,20,Site\n")  # two standard deviations are 40 months
    one, boy, age_C = np.array([120.0]), np.ones(1, bool), np.array([120.0])
    assert clinically_significant(one, one + 30, boy, age_C).tolist() == [True]
    assert clinically_significant(one, one + 30, boy, age_C, wide).tolist() == [False]
    assert clinically_significant(one, one + 41, boy, age_C, wide).tolist() == [True]


def test_norms_with_a_mean_of_their_own_shift_the_borders():
    late = norms("male,12,6,10,Site\nmale,216,186,10,Site\n")  # at 120 months the mean is 101.3: normal is 81 to 121
    actual_C, predicted_C, age_C = np.array([120.0, 120]), np.array([119.0, 123]), np.array([120.0, 120])
    assert clinically_significant(actual_C, predicted_C, np.ones(2, bool), age_C, late).tolist() == [False, True]
    unknown = clinically_significant(actual_C, actual_C + np.array([19, 21]), np.ones(2, bool), None, late)
    assert unknown.tolist() == [False, True]


def test_reports_name_the_norms_and_what_stands_in_for_a_sex_they_leave_out():
    girls, table = norms("female,12,12,20,Site\nfemale,216,216,20,Site\n"), cases()
    for report in (figures(table, norms=girls)["significant_errors"], compare(table, table, norms=girls)):
        assert report["norms"].startswith("Site; male children by Gilsanz")
    assert figures(table)["significant_errors"]["norms"].startswith("Gilsanz")


def test_the_figures_are_json_and_count_every_case():
    report = json.loads(json.dumps(figures(cases()), allow_nan=False))
    assert report["n"] == 40 == sum(map(sum, report["confusion"]))
    assert len(report["worst"]) == 10
    assert "coverage" not in report


def test_coverage_is_measured_where_the_table_has_intervals():
    table = cases()
    for level, reach in ((80, 10), (90, 14), (95, 500)):
        table[f"low_{level}"], table[f"high_{level}"] = (
            table["predicted_months"] - reach,
            table["predicted_months"] + reach,
        )
    shares = {level["level"]: level["share"] for level in figures(table)["coverage"]["levels"]}
    assert shares[80] <= shares[90] <= shares[95] == 1


def with_intervals(table: pd.DataFrame, *levels: int) -> pd.DataFrame:
    ends = {f"{end}_{level}": table["predicted_months"] + sign * level / 6 for level in levels for end, sign in ENDS}
    return table.assign(**ends)


def test_one_level_is_measured_where_it_stands_alone_and_on_the_cases_that_have_it():
    table = with_intervals(cases(), 90)
    table.loc[[3, 5], ["low_90", "high_90"]] = [[np.nan, 200], [np.nan, np.nan]]
    (level,) = figures(table)["coverage"]["levels"]
    assert (level["level"], level["n"], level["left_out"]) == (90, 38, 2)
    error = (table["predicted_months"] - table["bone_age_months"]).drop(index=[3, 5])
    assert level["share"] == pytest.approx(error.abs().le(15).mean(), abs=1e-4)


def test_no_level_but_empty_cells_is_no_coverage():
    assert "coverage" not in figures(cases().assign(low_90=np.nan, high_90=np.nan))


def report_of(table: pd.DataFrame) -> dict:
    rejected = {"rejected": 0, "rejected_reasons": {}, "rejected_files": []}
    return {"predictions": "theirs.csv", "source": "a table", **figures(table), **rejected}


def test_text_and_card_show_the_shares_held_by_sex_and_band_and_a_dash_where_a_mean_has_no_interval():
    report = report_of(with_intervals(cases(), 68, 90))
    held = next(g for g in report["coverage"]["groups"] if g["n"] >= 5)
    level = next(level for level in held["levels"] if level["level"] == 68)
    for text, dash in ((evaluation_text(report), "-  "), ("\n".join(card._measured(report)), "| - |")):
        assert "68 % interval" in text
        assert f"{100 * level['share']:.1f}" in text
        assert dash in text
        assert "a mean of fewer than 10 cases has no interval" in text.lower()


def test_cases_without_an_interval_are_counted_where_it_is_printed():
    table = with_intervals(cases(), 90)
    table.loc[0, "low_90"] = np.nan
    assert "1 of 40 cases have none" in evaluation_text(report_of(table))
    assert "inside the 90 % interval, 1 cases without" in "\n".join(card._measured(report_of(table)))


def test_a_style_holds_the_cases_of_which_that_was_noticed():
    table = cases(6).assign(findings=["", "framed", "framed,inverted", "", "", "inverted"])
    found = {row["style"]: row["n"] for row in styles(table, np.ones(6))}
    assert found == {"nothing noticed": 3, "framed": 2, "inverted": 2}


def test_predictions_of_any_system_are_measured_with_their_references(tmp_path):
    table = cases()
    years = (table["predicted_months"] / 12).round(6)
    pd.DataFrame({"Image ID": table["case_id"] + ".png", "Prediction (years)": years}).to_csv(
        tmp_path / "theirs.csv", index=False, sep=";"
    )
    table[["case_id", "sex", "bone_age_months"]].iloc[:30].to_csv(tmp_path / "labels.csv", index=False)
    evaluation = evaluate_table(tmp_path / "theirs.csv", tmp_path / "labels.csv")
    assert evaluation.report["n"] == 30
    assert evaluation.report["rejected_reasons"] == {"no_reference": 10}
    expected = (table["predicted_months"] - table["bone_age_months"]).abs()[:30].mean()
    assert evaluation.report["mae_months"] == pytest.approx(expected, abs=1e-3)


def test_one_table_may_hold_predictions_and_references(tmp_path):
    cases().drop(columns="is_male").to_csv(tmp_path / "both.csv", index=False)
    assert evaluate_table(tmp_path / "both.csv").report["n"] == 40


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("id,predicted_months\n1,100\n1,101\n", "1 stands there twice"),
        ("id,predicted_months\n1,100\n2,\n", "line 3: a row must hold an id and a number"),
        ("id,score\n1,100\n", "Say --predicted NAME"),
        ("id,predicted\n1,10\n2,11\n3,12\n", "look like years"),
        ("id,predicted,pred_months\n1,10,20\n", "must have one column of predictions"),
        ("id,predicted\n", "holds no prediction"),
        ("id,predicted,reason\n1,,no_hand\n", "holds no prediction"),
        ("id,predicted,reason\n1,abc,no_hand\n", "an id and a number, or say in a column 'reason'"),
        ("id,predicted,reason\n1,,\n", "got the id '1' and the prediction ''"),
        ("id,predicted,reason\n1,100,\n1,,no_hand\n", "1 stands there twice"),
        ("id,predicted,low_90\n1,100,90\n", "must have a column high_90 beside low_90"),
        ("id,predicted,low_90,high_90\n1,100,90,110\n2,100,110,90\n", "line 3: low_90 must lie at or below high_90"),
        ("id,predicted,low_90,high_90\n1,100,wide,110\n", "low_90 must be a number or empty, got 'wide'"),
        ('id,predicted,distribution\n1,100,"[0.5, 0.5]"\n', "line 2: distribution must be a list of 240 probabilities"),
        (f'id,predicted,distribution\n1,100,"{[0.5] * 240}"\n', "got 240 that sum to 120. Mend the row"),
        (f'id,predicted,distribution\n1,100,"{[1.5, -0.5] + [0] * 238}"\n', r"got '\[1.5, -0.5, 0"),
        (f'id,predicted,distribution\n1,100,"{[1] + [0] * 239}"\n2,90,\n', "got 1 of 2; 2 has none"),
        (
            "id,predicted\n1,100\n2,1e8\n",
            r"line 3: a predicted bone age must lie within -12\.\.300 months, got 1e\+08",
        ),
        ("id,predicted\n1,-100\n2,-90\n3,-80\n", "line 2: a predicted bone age must lie within .* got -100 months"),
        ("id,predicted_years\n1,100\n", r"within -1\.\.25 years, got 100 years.* say --predicted-unit months"),
        ("id,predicted_years,low_90,high_90\n1,10,110,130\n", "inside of their own 90 % intervals, and 1 of 1 do not"),
        (
            "id,predicted,low_90,high_90,low_95,high_95\n1,100,90,110,95,105\n",
            "95 % .* must not lie inside of the 90",
        ),
        (
            "id,predicted,low_90,high_90,low_90_years,high_90_years\n1,100,90,110,7,9\n",
            "must say the 90 % .* once",
        ),
        ("id,predicted,low_90_years,high_90\n1,100,7,110\n", "must have a column high_90_years beside low_90_years"),
        ("id,predicted,findings\n1,100,a pin in it\n", "line 2: findings must be codes .* got 'a pin in it'"),
    ],
)
def test_a_table_that_is_not_understood_is_refused(tmp_path, text, sentence):
    (tmp_path / "theirs.csv").write_text(text)
    with pytest.raises(SourceError, match=sentence):
        read_predictions(tmp_path / "theirs.csv")


@pytest.mark.parametrize("name", ["scored.csv", "scored.parquet"])
def test_the_table_that_score_writes_is_measured_with_its_reasons(tmp_path, name):
    refused = {"predicted_months": None, "reason": "no_hand", "detail": "There is no hand."}
    rows = [
        {"case_id": row.case_id, "file": f"{row.case_id}.png", "distribution": [1 / 240] * 240}
        | ({"predicted_months": row.predicted_months, "low_90": row.predicted_months - 1, "high_90": 239.0})
        for row in cases().itertuples()
    ]
    rows[3] = {"case_id": "003", "file": "003.png"} | refused
    scored = pd.DataFrame(pa.Table.from_pylist(rows, SCHEMA).to_pandas())
    scored.to_csv(tmp_path / name, index=False) if name.endswith("csv") else scored.to_parquet(tmp_path / name)
    cases().to_csv(tmp_path / "labels.csv", index=False, columns=["case_id", "sex", "bone_age_months"])
    found = evaluate_table(tmp_path / name, tmp_path / "labels.csv")
    assert found.report["n"] == 39
    assert found.report["rejected_reasons"] == {"no_hand": 1}
    assert [level["level"] for level in found.report["coverage"]["levels"]] == [90]
    assert "003.png: There is no hand." in evaluation_text(found.report)


@pytest.mark.parametrize("name", ["scored.csv", "scored.parquet"])
def test_distributions_and_findings_of_a_table_give_the_figures_that_a_bundle_has(tmp_path, name):
    table = cases()
    months = table["bone_age_months"].astype(int)
    own = table.assign(
        distribution=[0.5 * np.eye(240)[month] + 0.5 * np.eye(240)[max(0, month - 12)] for month in months],
        findings=["framed", "", "framed,inverted", ""] * 10,
    )
    said = own[["case_id", "predicted_months", "distribution"]].assign(
        findings=["framed,sex_unknown", "members_disagree", "framed,inverted", ""] * 10
    )
    said.to_csv(tmp_path / name, index=False) if name.endswith("csv") else said.to_parquet(tmp_path / name)
    table.to_csv(tmp_path / "labels.csv", index=False, columns=["case_id", "sex", "bone_age_months"])
    found, expected = evaluate_table(tmp_path / name, tmp_path / "labels.csv").report, figures(own)
    assert [row["style"] for row in found["styles"]] == ["nothing noticed", "framed", "inverted"]
    assert {key: found[key] for key in expected} == json.loads(json.dumps(expected))
    assert found["top2_year"] > found["top1_year"]


def test_intervals_of_years_are_measured_in_months(tmp_path):
    table = cases()
    years = {"id": table["case_id"], "predicted_years": table["predicted_months"] / 12}
    ends = {"Low 90": years["predicted_years"] - 1, "High 90": years["predicted_years"] + 1}
    pd.DataFrame(years | ends).to_csv(tmp_path / "theirs.csv", index=False)
    predicted, unanswered = read_predictions(tmp_path / "theirs.csv")
    assert (predicted["high_90"] - predicted["low_90"]).to_numpy() == pytest.approx(24)
    assert unanswered.empty


def test_tables_without_a_common_case_name_their_ids(tmp_path):
    (tmp_path / "theirs.csv").write_text("id,predicted\na,100\n")
    cases().to_csv(tmp_path / "labels.csv", index=False, columns=["case_id", "sex", "bone_age_months"])
    with pytest.raises(SourceError, match="a against 000, 001, 002"):
        evaluate_table(tmp_path / "theirs.csv", tmp_path / "labels.csv")


def test_infants_are_taken_where_the_caller_has_looked_and_the_sentence_names_the_option(tmp_path):
    months = np.arange(3.0, 18)
    infants = pd.DataFrame({"id": range(15), "sex": "male", "bone_age_months": months, "predicted": months})
    infants.to_csv(tmp_path / "infants.csv", index=False)
    with pytest.raises(SourceError, match="Say --predicted-unit years, or --trust-unit"):
        read_predictions(tmp_path / "infants.csv", unit="months")
    trusting = SourceOptions(trust_unit=True)
    assert evaluate_table(tmp_path / "infants.csv", options=trusting, unit="months").report["mae_months"] == 0


def test_ends_of_intervals_are_in_the_unit_that_their_names_say(tmp_path):
    (tmp_path / "theirs.csv").write_text("id,predicted_years,low_90_months,high_90_months\n1,10,110,130\n")
    predicted, _ = read_predictions(tmp_path / "theirs.csv")
    assert predicted[["predicted_months", "low_90", "high_90"]].values.tolist() == [[120, 110, 130]]


def test_a_chronological_age_that_cannot_be_is_warned_of_and_its_case_is_measured(tmp_path, capsys):
    table = cases().drop(columns="is_male").assign(chronological_age_months=120)
    table.to_csv(tmp_path / "right.csv", index=False)
    assert "ages" not in evaluate_table(tmp_path / "right.csv").report
    ages = ["abc", "-7", "1500", "", *table["chronological_age_months"][4:]]
    table.assign(chronological_age_months=ages).to_csv(tmp_path / "wrong.csv", index=False)
    assert main(["evaluate", str(tmp_path / "wrong.csv"), "--json"]) == 0
    out, err = capsys.readouterr()
    report, wrong = json.loads(out), ", ".join(table["case_id"][:3])
    assert f"3 of 40 cases have a chronological age that cannot be ({wrong})" in err
    assert (report["n"], report["rejected"], report["ages"]["doubtful"]) == (40, 0, 3)


def test_rows_that_may_be_in_years_among_months_are_warned_of(tmp_path, capsys):
    table = cases().drop(columns="is_male").assign(bone_age_months=120.0, predicted_months=121.0)
    table.loc[0, ["bone_age_months", "predicted_months"]] = [40, 19]  # wrong, and more so as years
    table.to_csv(tmp_path / "months.csv", index=False)
    table.loc[[3, 5], "predicted_months"] = 10.1
    table.to_csv(tmp_path / "mixed.csv", index=False)
    assert "unit" not in evaluate_table(tmp_path / "months.csv").report
    assert main(["evaluate", str(tmp_path / "mixed.csv"), "--json"]) == 0
    assert "2 of 40 predictions are at most 20 months" in capsys.readouterr().err
