"""Five hundred hostile requests: each a reading or a documented refusal, and none tells of us."""

import numpy as np
import pytest
from starlette.testclient import TestClient

from benchmarks.mutation import seeds
from benchmarks.serve_hostile import hostile, run
from ensemble.prediction import Prediction
from preprocessing.drawing.wrong import KINDS
from serve.protocol import Outcome, Query, answer
from tests.test_serve_gateway import READER, MeanScorer, books, client

__all__ = ["books", "client"]  # fixtures


class WholeScorer(MeanScorer):
    """Answers with all that a real answer has."""

    async def score(self, query: Query) -> Outcome:
        months = float(READER.read(query.data).pixels.mean())
        found = Prediction(
            months, 0.0, np.full(240, 1 / 240, np.float32), "ens-0", "r", "b", "c", profile=query.profile
        )
        if query.chronological_age_months is not None:
            found = found.beside(query.chronological_age_months, None if query.sex == "unknown" else query.sex)
        if not query.explain:
            return Outcome(answer(found))
        return Outcome({**answer(found), "heatmap": {}}, heatmap=b"PNG")


@pytest.fixture
def scorer() -> MeanScorer:
    return WholeScorer()


@pytest.mark.slow
def test_five_hundred_hostile_uploads_get_no_status_500(client: TestClient) -> None:
    found = run(client.request, 500)
    assert found["failed"] == []
    assert found["outcomes"]["read"] > 50, found["outcomes"]
    assert len(found["outcomes"]) > 10, found["outcomes"]
    assert set(found["families"]) >= {"listed by hand", "no hand", "damaged file", "broken form"}


def test_every_kind_of_no_hand_is_sent_and_the_same_each_time() -> None:
    corpus = seeds()
    sent = [hostile(corpus, 3, case) for case in range(4 * len(KINDS))]
    drawn = [each.content for each in sent if each.family == "no hand"]
    assert len(set(drawn)) == len(drawn) == len(KINDS)
    assert [hostile(corpus, 3, case) for case in range(8)] == sent[:8]
