"""Tables over trials: Markdown and LaTeX that stay whole whatever the labels and folders are called."""

from electra.results import latex, markdown, results_table, summarise_trials


def test_latex_takes_every_character() -> None:
    table = latex([["100%_\\{a}", "$1 \\pm 2$"], ["~^&#$", "b"]], "a_b\\c")
    assert r"100\%\_\textbackslash{}\{a\} & $1 \pm 2$ \\" in table
    assert r"\textasciitilde{}\textasciicircum{}\&\#\$ & b \\" in table
    assert r"\caption{a\_b\textbackslash{}c}" in table


def test_a_bar_in_a_cell_is_no_column() -> None:
    assert markdown([["a|b", "c"], ["d", "e"]]).splitlines()[0] == r"| a\|b | c |"


def test_many_trials_have_no_columns_of_their_own() -> None:
    facts = {"task": "own", "model": "m", "from_scratch": False, "mode": "train_eval", "metric": "accuracy"}
    facts |= {"steps": 3, "select": "last", "examples": {"train": 9}}
    trials = [{"seed": seed, "dev": {"accuracy": 0.5}} for seed in range(7)]
    few, many = (results_table(facts | summarise_trials(part, "accuracy")) for part in (trials[:6], trials))
    assert "seed 5" in few
    assert "seed 5" not in many
    assert "| dev   | accuracy (main) | 0.5000 | 0.5000 | 0.0000 |" in many
    assert "each of the 7 trials" in many
