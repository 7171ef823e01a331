"""The vocabulary a recipe asks for: `tokenizer_source: base | union | MODEL`, or mergekit's mapping `tokenizer:`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from merging.errors import UserError
from merging.words import nearest, shown

MAX_PADDING = 65_536
_KEYS = ("source", "tokens", "pad_to_multiple_of")
_SOURCES = {"zero": ("kind",), "model_token": ("kind", "model", "token", "token_id")}
_DO = "Write `source: MODEL`, `source: {kind: zero}`, or `source: {kind: model_token, model: MODEL, token: TOKEN}`."


@dataclass(frozen=True)
class TokenRule:
    """Whose row a token gets: `of` of `model`, or zeros without a model. Only where it is lacking, unless `force`."""

    token: str
    model: str | None
    of: str | int | None = None  # a token or an id of that model; None for the token itself
    force: bool = False


@dataclass(frozen=True)
class TokenizerChoice:
    """`source` is "base", "union" or a model of the recipe."""

    source: str = "union"
    tokens: tuple[TokenRule, ...] = ()
    pad_to_multiple_of: int | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that it names."""
        named = [self.source] if self.source not in ("base", "union") else []
        return tuple(dict.fromkeys([*named, *(rule.model for rule in self.tokens if rule.model)]))

    def renamed(self, names: Mapping[str, str]) -> "TokenizerChoice":
        rules = (replace(rule, model=rule.model and names.get(rule.model, rule.model)) for rule in self.tokens)
        source = self.source if self.source in ("base", "union") else names.get(self.source, self.source)
        return replace(self, source=source, tokens=tuple(rules))

    def plain(self) -> dict[str, Any]:
        """As YAML has it."""
        found: dict[str, Any] = {"source": self.source}
        if self.tokens:
            found["tokens"] = {rule.token: _plain_rule(rule) for rule in self.tokens}
        if self.pad_to_multiple_of is not None:
            found["pad_to_multiple_of"] = self.pad_to_multiple_of
        return found


def read_choice(raw: dict[str, Any]) -> TokenizerChoice:
    """From YAML without faults."""
    rules = tuple(_read_rule(token, entry) for token, entry in (raw.get("tokens") or {}).items())
    return TokenizerChoice(raw.get("source") or "union", rules, raw.get("pad_to_multiple_of"))


def choice_faults(document: Mapping[str, Any]) -> Iterator[UserError]:
    """What is wrong with the form of `tokenizer:`."""
    raw = document.get("tokenizer")
    if raw is None:
        return
    if document.get("tokenizer_source") is not None:
        yield _fault("`tokenizer_source` says it too; one of them counts", "tokenizer", "Leave one of them out.")
    if not isinstance(raw, dict):
        yield _fault("must be a mapping such as `{source: union}`", "tokenizer", "Or write `tokenizer_source:`.")
        return
    for key in raw:
        if key not in _KEYS:
            yield UserError("E_KEY", f"no such key: {shown(key)}.", where="tokenizer", do=nearest(str(key), _KEYS))
    source = raw.get("source")
    if source is not None and not (isinstance(source, str) and source.strip()):
        yield _fault(f"{shown(source)} is not base, union or a model", "tokenizer, source")
    multiple = raw.get("pad_to_multiple_of")
    if multiple is not None and not (type(multiple) is int and 1 <= multiple <= MAX_PADDING):
        what = f"{shown(multiple)} is not a whole number from 1 to {MAX_PADDING:,}"
        yield _fault(what, "tokenizer, pad_to_multiple_of")
    tokens = raw.get("tokens")
    if tokens is not None and not isinstance(tokens, dict):
        yield _fault("must be a mapping from tokens to their sources", "tokenizer, tokens")
        return
    for token, entry in (tokens or {}).items():
        yield from _rule_faults(token, entry)


def _rule_faults(token: Any, entry: Any) -> Iterator[UserError]:
    where = f"tokenizer, tokens, {shown(token)}"
    if not isinstance(token, str):
        yield _fault("a token is text", where, "Put it in quotes.")
    if not isinstance(entry, dict) or not set(entry) <= {"source", "force"}:
        yield _fault("takes `source:` and `force:`", where, _DO)
        return
    if not isinstance(entry.get("force", False), bool):
        yield _fault(f"force is {shown(entry['force'])}; it must be true or false", where)
    source = entry.get("source")
    if isinstance(source, str) and source.strip():
        return
    kind = source.get("kind") if isinstance(source, dict) else None
    if not isinstance(source, dict) or str(kind) not in _SOURCES or not set(source) <= set(_SOURCES[str(kind)]):
        yield _fault("its source is neither a model nor a mapping with a known `kind:`", where, _DO)
    elif kind == "model_token":
        of = [source[key] for key in ("token", "token_id") if source.get(key) is not None]
        token_id = source.get("token_id", 0)
        fits = isinstance(source.get("token", ""), str) and type(token_id) is int and token_id >= 0
        if not (isinstance(source.get("model"), str) and len(of) == 1 and fits):
            yield _fault("model_token takes a `model:` and either its `token:` or its `token_id:`", where, _DO)


def _read_rule(token: str, entry: dict[str, Any]) -> TokenRule:
    source, force = entry["source"], entry.get("force", False)
    if isinstance(source, str):
        return TokenRule(token, source, None, force)
    if source["kind"] == "zero":
        return TokenRule(token, None, None, force)
    of = source["token"] if source.get("token") is not None else source["token_id"]
    return TokenRule(token, source["model"], of, force)


def _plain_rule(rule: TokenRule) -> dict[str, Any]:
    source: Any = rule.model
    if rule.model is None:
        source = {"kind": "zero"}
    elif rule.of is not None:
        key = "token" if isinstance(rule.of, str) else "token_id"
        source = {"kind": "model_token", "model": rule.model, key: rule.of}
    return {"source": source, "force": True} if rule.force else {"source": source}


def _fault(what: str, where: str, do: str = "") -> UserError:
    return UserError("E_TOKENIZER", what, where=where, do=do)
