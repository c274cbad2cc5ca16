"""The ledger's tables. What a migration made of them is checked against these by a test; times are Unix seconds, UTC.

No table holds a radiograph, a file name or a subject's own identifier.
"""

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

settings = Table(
    "settings",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", String(128), nullable=False),
)
"""``pepper``: the secret with which subjects become pseudonyms; ``declared``: the version that a configuration file
named the last time and that was crowned for it, or ``champion``."""

predictions = Table(
    "predictions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("created_s", Double, nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("key_id", String(16), nullable=False),
    Column("idempotency_key", String(128)),
    Column("fingerprint", String(64), nullable=False),
    Column("subject", String(32)),
    Column("sex", String(8)),
    Column("version", String(32), nullable=False),
    Column("bone_age_months", Double, nullable=False),
    Column("answer", JSON, nullable=False),
    Column("latency_ms", Double, nullable=False),
    Column("routing_version", Integer, nullable=False),
    Column("experiment", String(64)),
    Column("arm", String(16)),
    Column("share", Double),
    UniqueConstraint("key_id", "idempotency_key"),
    Index("ix_predictions_arm", "experiment", "arm", "created_s"),
    Index("ix_predictions_subject", "experiment", "subject", "created_s"),
)
"""One row an answer. ``fingerprint``: SHA-256 of what was asked; ``subject``: a pseudonym; ``sex``: none where unknown;
``share``: the probability with which an experiment gave this subject its ``arm``."""

shadows = Table(
    "shadows",
    metadata,
    Column("prediction_id", ForeignKey("predictions.id"), primary_key=True),
    Column("created_s", Double, nullable=False),
    Column("version", String(32), nullable=False),
    Column("bone_age_months", Double, nullable=False),
    Column("answer", JSON, nullable=False),
    Column("latency_ms", Double, nullable=False),
    Index("ix_shadows_created_s", "created_s"),
)
"""What the challenger of a shadow experiment says about a prediction that the champion answered."""

failures = Table(
    "failures",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("created_s", Double, nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("version", String(32), nullable=False),
    Column("code", String(32), nullable=False),
    Column("experiment", String(64)),
    Column("arm", String(16)),
    Index("ix_failures_arm", "experiment", "arm", "created_s"),
)
"""Requests that a version could not answer, though the image was fit."""

heatmaps = Table(
    "heatmaps",
    metadata,
    Column("prediction_id", ForeignKey("predictions.id"), primary_key=True),
    Column("created_s", Double, nullable=False),
    Column("png", LargeBinary, nullable=False),
)
"""Where an answer came from, for those who asked; colour and opacity alone, nothing of the radiograph."""

reference_readings = Table(
    "reference_readings",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("prediction_id", ForeignKey("predictions.id"), nullable=False),
    Column("created_s", Double, nullable=False),
    Column("key_id", String(16), nullable=False),
    Column("reader", String(32), nullable=False),
    Column("bone_age_months", Double, nullable=False),
    Index("ix_reference_readings_prediction_id", "prediction_id"),
)
"""Readings that arrived later, numbered in the order in which they are stored; the latest of each reader counts."""

keys = Table(
    "keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("roles", String(32), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("created_s", Double, nullable=False),
    Column("ends_s", Double),
    Column("per_minute", Integer),
)
"""Keys of callers; ``digest`` is the SHA-256 of the secret, ``ends_s`` when the key stops or stopped to open,
``per_minute`` how many images it may send; none where nothing was said."""

experiments = Table(
    "experiments",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("started_s", Double, nullable=False),
    Column("ended_s", Double),
    Column("outcome", String(16)),
    Column("definition", JSON, nullable=False),
    CheckConstraint("(ended_s IS NULL) = (outcome IS NULL)", name="ended_with_outcome"),
)
"""Experiments; the definition is what `serve.experiment.Experiment` writes, with the share that holds or held last."""

routing = Table(
    "routing",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("created_s", Double, nullable=False),
    Column("state", JSON, nullable=False),
)
"""Every routing state there was; the highest version holds. A version exists once, which makes it compare-and-swap."""

releases = Table(
    "releases",
    metadata,
    Column("version", String(32), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("changed_s", Double, nullable=False),
    Column("reason", String(500), nullable=False),
    Column("description", JSON, nullable=False),
)
"""Versions that the service holds or tried to hold: ``loading``, ``ready``, ``asleep`` or ``failed`` for a reason;
``description`` is what ``GET /v1/versions`` says of the bundle."""

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("created_s", Double, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("act", String(32), nullable=False),
    Column("detail", JSON, nullable=False),
)
"""Every act of an administrator or a policy, with the data it was decided on; never changed, never deleted."""
