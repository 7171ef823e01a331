"""One vocabulary for a family: which row of each model belongs to which token of the merge. Nothing is cut silently.

Rules as in mergekit 0.1.5: a token that a model lacks has the base's row there, so that its delta is 0; if the base
lacks it too, the mean of the models that have it. `tokens:` overrides. Other than in mergekit, padding
rows stay: a base of 32,064 rows for 32,002 tokens makes a merge of 32,064 rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from merging.checkpoint import FLOATS, NAMES, Checkpoint, TensorInfo
from merging.errors import Fix, UserError
from merging.ties import base_ties, expert_ties, without_vocabulary
from merging.tokenizer_choice import TokenizerChoice, TokenRule
from merging.view import Rows, View, stored
from merging.vocabulary import MAX_TOKENS, embedding_of, head_of, read_vocabulary, row_count
from merging.words import shown, some


@dataclass(frozen=True)
class Output:
    """The merge's tokenizer: the files of `source` with `added` tokens (tokenizer.json's entries) behind its own."""

    source: Checkpoint
    added: tuple[dict[str, Any], ...] = ()
    next_id: int = 0  # the id that the tokenizers library gives the first of them


def fitted(choice: TokenizerChoice | None, members: Sequence[str], has_base: bool, opened: Mapping[str, Checkpoint],
           notices: list[str], problems: list[UserError]) -> tuple[dict[str, Checkpoint], Output]:  # fmt: skip
    """`opened`, with the members (the base or first model ahead) under one vocabulary, and the merge's tokenizer.

    After a problem with the vocabularies the members come without them, so that all else can still be checked.
    """
    base = members[0]
    found = dict(opened)
    try:
        found[base] = base_ties(opened[base], notices)
        for source in dict.fromkeys(source for source in members if opened[source] is not opened[base]):
            found[source] = expert_ties(found[base], opened[source], source, notices)
        family = {source: found[source] for source in members}
        others = {source: found[source] for source in opened if source not in family}
        views, output = align(choice, base, family, has_base, others, notices)
        return found | views, output
    except UserError as error:
        problems.append(error)
        return {source: without_vocabulary(model) for source, model in opened.items()}, Output(opened[base])


@dataclass(frozen=True)
class _Member:
    """A model, its tokens that have a row, and its number of rows."""

    name: str
    model: Checkpoint
    ids: Mapping[str, int] | None  # None where no file tells
    n_rows: int


def align(choice: TokenizerChoice | None, base: str, members: Mapping[str, Checkpoint], has_base: bool,
          others: Mapping[str, Checkpoint], notices: list[str]) -> tuple[dict[str, Checkpoint], Output]:  # fmt: skip
    """The members by source, as views where their rows move, and the merge's tokenizer.

    `members` holds the base and the experts; `has_base` says whether `base` is a base or only the first model; `others`
    are models that `tokenizer:` names beside them. Raises one UserError where vocabularies differ and `choice` is None.
    """
    asked = choice or TokenizerChoice("base")
    every = {source: _member(source, model) for source, model in {**others, **members}.items()}
    found = {source: member for source, member in every.items() if member is not None}
    if base not in found or len(found) < len(every):  # no language model, or shapes that `mismatches` tells about
        return dict(members), Output({**others, **members}.get(asked.source, members[base]))
    found = _known(found, base, asked)
    speaker = found[base if asked.source in ("base", "union") else asked.source]
    family = [found[source] for source in members]
    if speaker.ids is None:
        if asked.tokens or asked.pad_to_multiple_of or asked.source == "union":
            notices.append("No model has tokenizer files, so rows of the embedding are taken as they stand.")
        return dict(members), Output(speaker.model)
    differing = [m for m in family if m.ids != speaker.ids]
    if choice is None and differing:
        raise _refusal(found[base], differing)
    if choice is None and all(m.n_rows == speaker.n_rows for m in family):  # no token has to be looked at: a plan is
        return dict(members), Output(speaker.model)  # made for each move of a slider
    return _aligned(asked, speaker, family, list(found.values()), found[base], has_base, notices)


def _member(source: str, model: Checkpoint) -> _Member | None:
    rows = row_count(model)
    if rows is None:
        return None
    vocabulary = read_vocabulary(model)
    return _Member(source, model, vocabulary and vocabulary.held(rows), rows)


def _known(found: dict[str, _Member], base: str, asked: TokenizerChoice) -> dict[str, _Member]:
    """Models without tokenizer files speak as the base does, if they have as many rows."""
    model = next((m for m in (found[base], *found.values()) if m.ids is not None), None)
    if model is None:
        return found
    strangers = [m for m in found.values() if m.ids is None and m.n_rows != model.n_rows]
    if strangers:
        what = f"has {strangers[0].n_rows:,} rows of tokens, {model.name} {model.n_rows:,}, and no tokenizer.json says "
        raise UserError("E_VOCABULARY", what + "which token a row belongs to", where=strangers[0].name,
                        do="Put the tokenizer.json it was trained with into its folder (transformers writes it: "
                           "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)).")  # fmt: skip
    return {source: m if m.ids is not None else replace(m, ids=model.ids) for source, m in found.items()}


def _refusal(base: _Member, differing: list[_Member]) -> UserError:
    lines = []
    for member in differing:
        ours, theirs = base.ids or {}, member.ids or {}
        extra, lacking = [t for t in theirs if t not in ours], [t for t in ours if t not in theirs]
        moved = [t for t in ours if t in theirs and ours[t] != theirs[t]]
        parts = [f"{len(extra):,} token{'s' * (len(extra) > 1)} only there ({some(extra, 3)})"] * bool(extra)
        parts += [f"{len(lacking):,} only in the base ({some(lacking, 3)})"] * bool(lacking)
        parts += [f"{len(moved):,} under other ids ({some(moved, 3)})"] * bool(moved)
        lines.append(f"{member.name} has {', '.join(parts)}")
    place = ("tokenizer_source",)
    fix = Fix("Keep every token", "set", place, "union", instead=Fix("Keep the base's", "set", place, "base"))
    return UserError("E_VOCABULARY", "the vocabularies differ: " + "; ".join(lines), where="models", fix=fix,
                     do="Write `tokenizer_source: union` to keep every token, or `tokenizer_source: base` to keep "
                        "the base's.")  # fmt: skip


def _aligned(asked: TokenizerChoice, speaker: _Member, family: list[_Member], donors: list[_Member], first: _Member,
             has_base: bool, notices: list[str]) -> tuple[dict[str, Checkpoint], Output]:  # fmt: skip
    ids, added, first_new = _output_ids(asked, speaker, family)
    spare = max(speaker.n_rows, max(ids.values(), default=-1) + 1)
    n_rows = -(-spare // (asked.pad_to_multiple_of or 1)) * (asked.pad_to_multiple_of or 1)
    if n_rows > MAX_TOKENS:
        raise UserError("E_TOKENIZER", f"the merge would have {n_rows:,} tokens, more than {MAX_TOKENS:,}",
                        where="tokenizer", do="Use a smaller vocabulary.")  # fmt: skip
    rules = _rules(asked, ids, donors)
    output = Output(speaker.model, added, first_new)
    filled = _fillings(ids, spare, speaker, family, donors, first if has_base else None)
    filled |= {row: whose for row, (whose, _) in rules.items()}
    forced = {row for row, (_, force) in rules.items() if force}
    dtype = first.model.tensors[embedding_of(first.model) or head_of(first.model) or ""].dtype
    models = tuple(donor.model for donor in donors)
    views: dict[str, Checkpoint] = {}
    for member in family:
        places = {ids[t]: i for t, i in (member.ids or {}).items() if t in ids}
        if member is speaker or (member.ids == ids and member.n_rows == n_rows):  # its padding stands as it is
            taken = set(ids.values())
            places |= {row: row for row in range(member.n_rows) if row not in taken}
        places = {row: i for row, i in places.items() if row not in forced}
        if member.n_rows == n_rows == len(places) and all(row == i for row, i in places.items()):
            views[member.name] = member.model
            continue
        own = torch.full((n_rows,), -1, dtype=torch.int64)
        if places:
            own[list(places)] = torch.tensor(list(places.values()))
        lacking = {row: whose for row, whose in filled.items() if row not in places}
        rows = Rows(own, lacking, models, spare, (speaker.model, speaker.n_rows), dtype)
        views[member.name] = _view(member, rows, views.get(first.name))
    _tell(ids, speaker, family, filled, donors, notices)
    if n_rows > spare:
        notices.append(f"{n_rows - spare:,} rows are added as padding; each is the mean of {speaker.name}'s rows.")
    return views, output


def _output_ids(asked: TokenizerChoice, speaker: _Member,
                family: list[_Member]) -> tuple[dict[str, int], tuple[dict[str, Any], ...], int]:  # fmt: skip
    """Token -> row of the merge, the entries that its tokenizer needs beside the speaker's, and the first new id."""
    vocabulary = read_vocabulary(speaker.model)
    known = dict(vocabulary.ids) if vocabulary else dict(speaker.ids or {})
    next_id = first_new = max([vocabulary.next_id if vocabulary else 0, *(i + 1 for i in known.values())])
    ids, added = dict(speaker.ids or {}), []
    for member in family:
        theirs = member.ids or {}
        own = read_vocabulary(member.model)
        for token in sorted((token for token in theirs if token not in ids), key=theirs.__getitem__):
            if token in known:  # the speaker's tokenizer has it, but its embedding ends before
                ids[token] = known[token]
            elif asked.source == "union":
                ids[token] = next_id
                added.append(_entry(token, next_id, own.added.get(token) if own else None))
                next_id += 1
    return ids, tuple(added), first_new


def _entry(token: str, number: int, theirs: dict[str, Any] | None) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    own = {key: value for key, value in (theirs or {}).items() if key in plain and isinstance(value, bool)}
    return {"id": number, "content": token, **plain, **own}


def _rules(asked: TokenizerChoice, ids: Mapping[str, int],
           donors: Sequence[_Member]) -> dict[int, tuple[tuple[tuple[int, int], ...], bool]]:  # fmt: skip
    """Row -> (whose row it gets, whether in all models)."""
    numbers = {donor.name: number for number, donor in enumerate(donors)}
    found = {}
    for rule in asked.tokens:
        where = f"tokenizer, tokens, {shown(rule.token)}"
        if rule.token not in ids:
            raise UserError("E_TOKENIZER", "the merge's vocabulary has no such token", where=where,
                            do="Write `source: union`, or leave the token out.")  # fmt: skip
        whose = ((numbers[rule.model], _row(rule, donors[numbers[rule.model]], where)),) if rule.model else ()
        found[ids[rule.token]] = (whose, rule.force)
    return found


def _row(rule: TokenRule, donor: _Member, where: str) -> int:
    wanted = rule.token if rule.of is None else rule.of
    row = wanted if isinstance(wanted, int) else (donor.ids or {}).get(wanted)
    if row is None or row >= donor.n_rows:
        raise UserError("E_TOKENIZER", f"{donor.name} has no token {shown(wanted)}", where=where,
                        do="Name a token that this model has.")  # fmt: skip
    return row


def _fillings(ids: Mapping[str, int], spare: int, speaker: _Member, family: list[_Member], donors: list[_Member],
              base: _Member | None) -> dict[int, tuple[tuple[int, int], ...]]:  # fmt: skip
    """For every row below `spare`, what a model gets that lacks it."""
    numbers = {donor.name: number for number, donor in enumerate(donors)}
    mine = numbers[speaker.name]
    found: dict[int, tuple[tuple[int, int], ...]] = {row: ((mine, row),) for row in range(speaker.n_rows)}  # padding
    members = [m for m in family if m is not base]
    for token, row in ids.items():
        if base is not None and token in (base.ids or {}):
            found[row] = ((numbers[base.name], (base.ids or {})[token]),)
            continue
        holders = [m for m in members if token in (m.ids or {})] or [m for m in donors if token in (m.ids or {})][:1]
        found[row] = tuple((numbers[m.name], (m.ids or {})[token]) for m in holders)
    return {row: whose for row, whose in found.items() if row < spare}


def _view(member: _Member, rows: Rows, base: Checkpoint | None) -> Checkpoint:
    model, n = member.model, len(rows.own)
    wide = [name for name in (embedding_of(model), head_of(model)) if name]
    wide += [name.removesuffix("weight") + "bias" for name in wide]
    moving = frozenset(name for name in wide if name in model.tensors and model.tensors[name].shape[0] == member.n_rows)
    tensors = dict(model.tensors)
    for name in moving:
        info = tensors[name]
        wider = torch.promote_types(FLOATS[info.dtype], FLOATS[rows.dtype]) if info.dtype in FLOATS else None
        tensors[name] = TensorInfo((n, *info.shape[1:]), NAMES[wider] if wider else info.dtype)
    below = model.over
    if below is not None and base is not None and stored(base).fingerprint == below.fingerprint:
        below = base  # an adapter's deltas outside the vocabulary are still its factors
    return View(model.source, model.folder, model.config, tensors, model.notices, over=below,
                commit=model.commit, absent=model.absent, model=model,
                names={name: name for name in tensors}, rows=rows, vocabulary=moving)  # fmt: skip


def _tell(ids: Mapping[str, int], speaker: _Member, family: list[_Member],
          filled: Mapping[int, tuple[tuple[int, int], ...]], donors: list[_Member],
          notices: list[str]) -> None:  # fmt: skip
    """Whose rows were taken, in counts."""
    origins: dict[tuple[int, ...], int] = {}
    for token, row in ids.items():
        if any(token not in (m.ids or {}) for m in family):
            whose = tuple(number for number, _ in filled.get(row, ()))
            origins[whose] = origins.get(whose, 0) + 1
    for whose, n in origins.items():
        who = " and ".join(donors[number].name for number in whose)
        rows = f"{n:,} {'token is' if n == 1 else 'tokens are'} not in every model; those that lack"
        taken = f"the mean of the rows of {who}" if len(whose) > 1 else f"{who}'s row" if whose else "zeros"
        notices.append(f"{rows} {'it' if n == 1 else 'one'} get {taken}.")
    for member in family:
        lost = [token for token in member.ids or {} if token not in ids]
        if lost:
            notices.append(f"{member.name}: {len(lost):,} of its tokens are left out, because the merge speaks "
                           f"{speaker.name}'s vocabulary: {some(lost, 3)}.")  # fmt: skip
        if member.ids == ids and member.n_rows != speaker.n_rows:
            notices.append(f"{member.name} has {member.n_rows:,} rows for the same {len(ids):,} tokens, {speaker.name} "
                           f"{speaker.n_rows:,}: the padding is {speaker.name}'s.")  # fmt: skip
