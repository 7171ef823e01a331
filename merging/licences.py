"""Licences of the models that go into a merge: which is the strictest, and which do not go together.

What counts is what a merge may be used for, and what its licence must say. This orders licences; it is no legal advice.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import combinations

UNKNOWN = "unknown"
FREE, NOTICE, ALIKE, RULES, OWN_TERMS, RESEARCH, NO_CHANGES, UNTOLD = range(8)  # strictness, least first

# The licence's text travels with the merge, and nothing else is asked. Ids are those of the Hub's `license` field.
_FREE = "cc0-1.0 unlicense wtfpl 0bsd pddl cdla-permissive-1.0 cdla-permissive-2.0"
_NOTICE = ("apache-2.0 mit bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear isc zlib ncsa postgresql afl-3.0 ecl-2.0 "
           "ms-pl bsl-1.0 artistic-2.0 openmdw-1.0 openmdw-1.1 odc-by cc-by-2.0 cc-by-2.5 cc-by-3.0 "
           "cc-by-4.0")  # fmt: skip
_ALIKE = ("cc-by-sa-3.0 cc-by-sa-4.0 gpl gpl-2.0 gpl-3.0 agpl-3.0 lgpl lgpl-2.1 lgpl-3.0 mpl-2.0 epl-1.0 epl-2.0 "
          "eupl-1.1 eupl-1.2 osl-3.0 odbl cdla-sharing-1.0")  # fmt: skip
_RULES = "openrail openrail++ bigscience-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m creativeml-openrail-m"
_RESEARCH = ("cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 apple-amlr "
             "h-research intel-research fair-noncommercial-research-license")  # fmt: skip
_NO_CHANGES = "cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0"

_LLAMA = ("Its text and Meta's use policy go with the merge, “Built with {0}” is shown, and the merge's name begins "
          "with {1}; above 700 million monthly users, ask Meta.")  # fmt: skip
_META_ONLY = "It may improve no language model but {0} and what is derived from it."
# Makers' own terms, from loose to strict: id (or the Hub's `license_name`), title, what they ask.
_TERMS = (
    ("deepseek", "DeepSeek License", RULES, "Its use restrictions go with the merge."),
    ("nvidia-open-model-license", "NVIDIA Open Model License", RULES, "Its text and notice go with the merge."),
    ("gemma", "Gemma Terms of Use", OWN_TERMS,
     "The terms, their notice and the prohibited-use policy go with the merge, and bind whoever gets it."),
    ("qwen", "Qwen License", OWN_TERMS,
     "Its text goes with the merge, and “Built with Qwen” or “Improved using Qwen” is shown; above 100 million monthly "
     "users, ask Alibaba."),
    ("tongyi-qianwen", "Tongyi Qianwen License", OWN_TERMS,
     "Its text goes with the merge; above 100 million monthly users, ask Alibaba."),
    ("llama4", "Llama 4 Community License", OWN_TERMS, _LLAMA.format("Llama", "Llama")),
    ("llama3.3", "Llama 3.3 Community License", OWN_TERMS, _LLAMA.format("Llama", "Llama")),
    ("llama3.2", "Llama 3.2 Community License", OWN_TERMS, _LLAMA.format("Llama", "Llama")),
    ("llama3.1", "Llama 3.1 Community License", OWN_TERMS, _LLAMA.format("Llama", "Llama")),
    ("grok2-community", "Grok 2 Community License", OWN_TERMS, "Read its terms before you share the merge."),
    ("llama3", "Meta Llama 3 Community License", OWN_TERMS,
     f"{_LLAMA.format('Meta Llama 3', 'Llama 3')} {_META_ONLY.format('Meta Llama 3')}"),
    ("llama2", "Llama 2 Community License", OWN_TERMS,
     f"Its text and use policy go with the merge; above 700 million monthly users, ask Meta. "
     f"{_META_ONLY.format('Llama 2')}"),
    ("qwen-research", "Qwen Research License", RESEARCH, "For research and evaluation only."),
    ("tongyi-qianwen-research", "Tongyi Qianwen Research License", RESEARCH, "For research and evaluation only."),
    ("mnpl", "Mistral AI Non-Production License", RESEARCH, "For tests and research, not for production."),
    ("mrl", "Mistral AI Research License", RESEARCH, "For research only, and so are all derivatives."),
)  # fmt: skip
_NOT_ON_HUB = (
    "deepseek",
    "nvidia-open-model-license",
    "qwen",
    "tongyi-qianwen",
    "qwen-research",
    "tongyi-qianwen-research",
    "mnpl",
    "mrl",
)  # models name them as `license_name`
_ASKS = {
    FREE: "It asks for nothing.",
    NOTICE: "Its text and the makers' names go with the merge.",
    ALIKE: "The merge goes under the same licence.",
    RULES: "Its use restrictions go with the merge.",
    RESEARCH: "Not for commercial use.",
    NO_CHANGES: "It lets nobody share changed copies, and a merge is one.",
}
_ALIASES = {
    "apache": "apache-2.0", "apache2": "apache-2.0", "apache2.0": "apache-2.0", "qwen-license": "qwen",
    "deepseek-license": "deepseek", "tongyi-qwen": "tongyi-qianwen", "mistral-research-license": "mrl",
    "mistral-ai-research-license": "mrl", "mistral-ai-non-production-license": "mnpl", "mnpl-0.1": "mnpl",
    "mrl-0.1": "mrl", "llama-2-community-license": "llama2", "llama-3-community-license": "llama3",
    "llama-3.1-community-license": "llama3.1", "llama-3.2-community-license": "llama3.2",
    "llama-3.3-community-license": "llama3.3", "llama-4-community-license": "llama4",
}  # fmt: skip


@dataclass(frozen=True)
class Licence:
    id: str
    title: str
    level: int  # FREE .. UNTOLD
    asks: str  # one or two sentences


def _known() -> Iterator[Licence]:
    groups = (_FREE, _NOTICE, _ALIKE, _RULES, _RESEARCH, _NO_CHANGES)
    for level, ids in zip((FREE, NOTICE, ALIKE, RULES, RESEARCH, NO_CHANGES), groups, strict=True):
        for name in ids.split():
            yield Licence(name, name, level, _ASKS[level])
    for name, title, level, asks in _TERMS:
        yield Licence(name, title, level, asks)


LICENCES = {licence.id: licence for licence in _known()}
_ORDER = {name: place for place, name in enumerate(LICENCES)}


def licence(name: str | None) -> Licence:
    """The licence that a model card names; unknown names keep their word and count as the strictest."""
    word = re.sub(r"[\s_]+", "-", (name or "").strip().lower()).replace("licence", "license")
    found = LICENCES.get(_ALIASES.get(word, word))
    if found:
        return found
    told = "" if word in ("", "other", UNKNOWN) else f" ({word[:60]})"
    return Licence(word[:60] if told else UNKNOWN, f"licence unknown{told}", UNTOLD, "Ask before you share.")


def strictest(names: Collection[str | None]) -> tuple[str, str]:
    """Id and one sentence on the strictest of these licences; what clashes is named too.

    None, "other" and names that are not known count as unknown. Raises ValueError for no name at all.
    """
    found = max(map(licence, names), key=lambda one: (one.level, _ORDER.get(one.id, 0)))
    if found.level == UNTOLD:
        unknown = sum(licence(name).level == UNTOLD for name in names)
        where = f" for {unknown} of {len(names)} models" if len(names) > 1 else ""
        text = f"{found.title}{where}: ask before you share."
    else:
        title = found.id if found.title == found.id else f"{found.id} ({found.title})"
        text = f"{title}. {found.asks}"
    return found.id, " ".join([text, *clashes(names)])


def hub_fields(name: str) -> dict[str, str]:
    """The front matter by which the Hub knows a licence: its own id, or `other` and the licence's name."""
    if name == UNKNOWN or (name in LICENCES and name not in _NOT_ON_HUB):
        return {"license": name}
    return {"license": "other", "license_name": name}


def clashes(names: Collection[str | None]) -> list[str]:
    """One sentence for each pair of licences that do not go together in one model."""
    found = sorted({licence(name) for name in names}, key=lambda one: (one.level, _ORDER.get(one.id, 0)))
    return [f"{a.id} and {b.id} clash: {why}." for a, b in combinations(found, 2) if (why := _clash(a, b))]


def _clash(a: Licence, b: Licence) -> str:
    """Why two licences, the looser first, cannot both be kept; or nothing."""
    if UNTOLD in (a.level, b.level):
        return ""
    if a.level == b.level == OWN_TERMS:
        return "each wants the merge under its own terms"
    if _whole(a) and b.level > ALIKE:
        return f"{a.id} forbids further limits, and {b.id} sets some"
    if _family(a) != _family(b) and _whole(a) and _whole(b):
        return "each wants the merge under itself"
    for one, other in ((a, b), (b, a)):
        if "-nc-sa-" in one.id and other.level > ALIKE and _family(other) != "cc":
            return f"{one.id} lets the merge be under nothing else"
    return ""


def _whole(one: Licence) -> bool:
    """Whether it wants everything that is made with it under itself."""
    return one.id.startswith(("cc-by-sa", "gpl", "agpl"))


def _family(one: Licence) -> str:
    return one.id.split("-")[0].lstrip("a")  # agpl and gpl go together
