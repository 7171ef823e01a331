"""Runs on disk: `runs.db` holds every answer that a model gave to a probe, so that nothing is asked twice, the scores
of every merge that was tried, and blind votes.

A run is one model, one probe set and one way of decoding; its key is a hash of all three. Answers are kept batch by
batch: a killed run goes on after its last batch, and two processes at the same run keep each answer once.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.scoring.votes import Result, Vote
from merging.errors import UserError

# Each step takes the file from the version before it; `user_version` counts those that were taken.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE runs (
            key TEXT PRIMARY KEY,
            model TEXT NOT NULL,     -- as shown: "merge", or the model's name
            family TEXT NOT NULL,    -- of a merge: its base's fingerprint; else empty
            recipe TEXT NOT NULL,    -- of a merge: its YAML; else empty
            about TEXT NOT NULL,     -- JSON: probe set, decoding, device; of a merge its digest and its experts
            began TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
            scores TEXT,             -- JSON once all probes are answered
            outcomes TEXT            -- JSON with them: probe id -> pass, fail, abstain, refuse or broken
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE answers (
            run TEXT NOT NULL REFERENCES runs(key) ON DELETE CASCADE,
            probe TEXT NOT NULL,
            text TEXT NOT NULL,
            PRIMARY KEY (run, probe)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX tried ON runs(family) WHERE scores IS NOT NULL",
    ),
    (
        """
        CREATE TABLE votes (
            family TEXT NOT NULL,    -- the base's fingerprint
            voter TEXT NOT NULL,     -- a hash, like the question: what people ask is not kept
            question TEXT NOT NULL,
            one TEXT NOT NULL,       -- a merge's digest or a source's fingerprint; the lesser of the two first
            other TEXT NOT NULL,
            result TEXT NOT NULL,    -- one, other, tie or bad
            PRIMARY KEY (voter, question, one, other)
        ) WITHOUT ROWID
        """,
    ),
)


def data_folder() -> Path:
    return Path(os.environ.get("MERGESCOPE_HOME") or Path.home() / ".cache" / "mergescope").expanduser()


@dataclass(frozen=True)
class Run:
    """One model on one probe set. `began` is UTC; `scores` and `outcomes` are None until every probe is answered."""

    key: str
    model: str
    family: str
    recipe: str
    about: Mapping[str, Any]
    began: str = ""
    scores: Mapping[str, Any] | None = None
    outcomes: Mapping[str, str] | None = None


def begin(run: Run) -> dict[str, str]:
    """The answers that were kept of this run, by probe id; the run is written down if it is new."""
    with _database() as db:
        db.execute(
            "INSERT OR IGNORE INTO runs (key, model, family, recipe, about) VALUES (?, ?, ?, ?, ?)",
            (run.key, run.model, run.family, run.recipe, json.dumps(run.about)),
        )
    return answers(run.key)


def answers(key: str) -> dict[str, str]:
    """By probe id."""
    with _database() as db:
        return dict(db.execute("SELECT probe, text FROM answers WHERE run = ?", (key,)))


def keep(key: str, texts: Mapping[str, str]) -> None:
    """A batch of answers by probe id, all of it or none; an answer that is there already stays."""
    with _database() as db:
        db.executemany(
            "INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", [(key, probe, text) for probe, text in texts.items()]
        )


def finish(key: str, scores: Mapping[str, Any], outcomes: Mapping[str, str]) -> None:
    with _database() as db:
        row = (json.dumps(scores), json.dumps(outcomes), key)
        db.execute("UPDATE runs SET scores = ?, outcomes = ? WHERE key = ?", row)


def find(key: str) -> Run | None:
    with _database() as db:
        row = db.execute(f"SELECT {_COLUMNS} FROM runs WHERE key = ?", (key,)).fetchone()
    return None if row is None else _run(row)


def tried(family: str) -> list[Run]:
    """Every merge over this base that was scored, the first first."""
    with _database() as db:
        query = f"SELECT {_COLUMNS} FROM runs WHERE family = ? AND scores IS NOT NULL ORDER BY began, key"
        return [_run(row) for row in db.execute(query, (family,))]


def cast(family: str, voter: str, question: str, vote: Vote) -> bool:
    """Whether it counts: one vote a voter, question and pair, the first."""
    one, other = sorted((vote.left, vote.right))
    result = {"left": "one", "right": "other"} if vote.left == one else {"left": "other", "right": "one"}
    who, what = (hashlib.sha256(text.encode()).hexdigest() for text in (voter, question))
    row = (family, who, what, one, other, result.get(vote.result, vote.result))
    with _database() as db:
        return db.execute("INSERT OR IGNORE INTO votes VALUES (?, ?, ?, ?, ?, ?)", row).rowcount == 1


def votes(family: str) -> list[Vote]:
    """Of everybody, in no order that tells who voted."""
    sides: dict[str, Result] = {"one": "left", "other": "right", "tie": "tie", "bad": "bad"}
    with _database() as db:
        found = db.execute("SELECT one, other, result FROM votes WHERE family = ? ORDER BY question, one", (family,))
        return [Vote(one, other, sides[result]) for one, other, result in found]


_COLUMNS = "key, model, family, recipe, about, began, scores, outcomes"


def _run(row: tuple[Any, ...]) -> Run:
    key, model, family, recipe, about, began, *found = row
    scores, outcomes = (text and json.loads(text) for text in found)
    return Run(key, model, family, recipe, json.loads(about), began, scores, outcomes)


@contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    """A connection for one transaction: committed at the end, rolled back on any error."""
    path = data_folder() / "runs.db"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=30)) as db:
            db.execute("PRAGMA journal_mode = WAL")  # the page reads while a job writes
            db.execute("PRAGMA foreign_keys = ON")
            _migrate(db, path)
            with db:
                yield db
    except (OSError, sqlite3.Error) as error:
        raise UserError(
            "E_DATA_FOLDER",
            f"answers cannot be kept here: {error}.",
            where=str(path),
            kept="Every answer that was kept before is still there.",
            do="Make room, or set MERGESCOPE_HOME to a folder that can be written.",
        ) from error


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise UserError(
            "E_NEWER_FILE",
            f"a newer Mergescope wrote this file (format {version}; this one knows {len(MIGRATIONS)}).",
            where=str(path),
            do="Update Mergescope, or set MERGESCOPE_HOME to another folder.",
        )
    for step in MIGRATIONS[version:]:
        version += 1
        with db:
            db.execute("BEGIN IMMEDIATE")  # of several processes the first migrates, the others find it done
            if db.execute("PRAGMA user_version").fetchone()[0] < version:
                for statement in step:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {version}")
