"""Tokenizer files that say what the merge's rows mean: the source's own, with the union's tokens appended."""

from merging.alignment import Output
from merging.errors import UserError
from merging.strict_json import json_bytes, parse_json


def with_added(files: dict[str, bytes], output: Output) -> dict[str, bytes]:
    """`files` with the added tokens in tokenizer.json and tokenizer_config.json; ids of all other tokens stay."""
    if not output.added:
        return files
    if "tokenizer.json" not in files:
        raise UserError("E_TOKENIZER", "has no tokenizer.json, so no tokens can be appended to its tokenizer",
                        where=output.source.source,
                        do="Write `tokenizer_source: base`, or let transformers write it: "
                           "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER).")  # fmt: skip
    document = parse_json(files["tokenizer.json"])
    document["added_tokens"] = [*(document.get("added_tokens") or []), *output.added]
    found = files | {"tokenizer.json": json_bytes(document)}
    if "tokenizer_config.json" in files:
        settings = parse_json(files["tokenizer_config.json"])
        decoder = settings.get("added_tokens_decoder") if isinstance(settings, dict) else None
        if isinstance(decoder, dict):  # it would overrule tokenizer.json
            for entry in output.added:
                decoder[str(entry["id"])] = {key: value for key, value in entry.items() if key != "id"}
            found["tokenizer_config.json"] = json_bytes(settings)
    found.pop("added_tokens.json", None)  # only tokenizers without tokenizer.json need it
    return found
