"""What every settings class is checked with."""


def require(condition: bool, sentence: str) -> None:
    """ValueError with this sentence unless the condition holds."""
    if not condition:
        raise ValueError(sentence)
