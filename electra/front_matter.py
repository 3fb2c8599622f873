"""The YAML at the head of a model card, which the Hugging Face Hub reads: written and checked by huggingface_hub.

    front_matter(tags=..., ...) -> "---\\n...\\n---\\n"        check_card(README.md) -> what is wrong with it

The Hub's own validator runs on its server, which huggingface_hub asks when a card is sent (`electra push`). What can be
known offline is checked here: that huggingface_hub reads the block, the model-index in it included, and writes back
what it read, and that languages are codes of ISO 639.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from electra.config.card import LANGUAGE, LICENSE


def front_matter(*, languages: Sequence[str] = (), license: str = "", **values: Any) -> str:
    """The block with its lines of dashes. `values` are fields of huggingface_hub's ModelCardData, or further keys."""
    from huggingface_hub import ModelCardData  # slow to import

    named = {"language": list(languages) or None, "license": license or None, "library_name": "transformers"}
    data = ModelCardData(**(named | values))
    return f"---\n{data.to_yaml()}\n---\n"


def check_card(text: str) -> list[str]:
    """What is wrong with the front matter of a README.md, a sentence each; empty for a valid card."""
    import yaml
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    found = REGEX_YAML_BLOCK.search(text)
    if found is None:
        return ["it has no front matter: a block between two lines of --- at its head"]
    try:
        card = ModelCard(text)
        data, again = card.data.to_dict(), ModelCard(str(card)).data.to_dict()
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        return [f"its front matter cannot be read: {' '.join(str(error).split())}"]
    faults = [] if data == again else ["its front matter changes when huggingface_hub writes it again"]
    language = data.get("language") or []
    for code in [language] if isinstance(language, str) else language:
        if not LANGUAGE.fullmatch(str(code)):
            faults.append(f"its language {code!r} is no code of ISO 639, such as en or ko")
    for key in ("license", "pipeline_tag", "library_name"):
        if not isinstance(data.get(key, ""), str):
            faults.append(f"its {key} is {data[key]!r} and must be a word")
    if not LICENSE.fullmatch(str(data.get("license", "other"))):
        faults.append(f"its license {data['license']!r} is no identifier of the Hub, such as apache-2.0 or other")
    tags = data.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        faults.append("its tags must be a list of words")
    return faults
