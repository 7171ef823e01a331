"""Which files make up a model, by name: the only ones that are taken along or downloaded."""

TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
             "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
             "spm.model", "normalizer.json", "tekken.json")  # fmt: skip
TEMPLATE, OLD_TEMPLATE, TEMPLATES = "chat_template.jinja", "chat_template.json", "additional_chat_templates"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
GENERATION = "generation_config.json"
TOKENIZER_LIMIT = 100 << 20  # bytes of one file of a tokenizer that are read
TEXTS = ("config.json", GENERATION, *TOKENIZER, TEMPLATE, OLD_TEMPLATE, ADAPTER_CONFIG, "README.md",
         "LICENSE", "LICENSE.txt", "LICENSE.md")  # fmt: skip
