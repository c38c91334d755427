"""YAML text -> data and lines."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw.config.document import Document, parse, path_text
from otelgw.errors import ConfigError

SEEDS = Path(__file__).parents[2] / "../shared/seeds"
GOOD = """\
model_list:
  - model_name: a
    litellm_params:
      model: openai/a
"""


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "c.yaml")
    return caught.value.problems


def test_every_place_knows_its_line() -> None:
    document = parse(GOOD, "c.yaml")
    assert document.lines["model_list[0].litellm_params.model"] == 4
    assert (
        document.where(("model_list", 0, "litellm_params", "model")) == "c.yaml:4: model_list[0].litellm_params.model"
    )


def test_an_absent_place_has_the_line_of_the_nearest_one_above_it() -> None:
    document = parse(GOOD, "c.yaml")
    assert document.line(("model_list", 0, "litellm_params", "api_key")) == 3
    assert document.line(("otelgw",)) == 0


def test_a_duplicate_key_is_refused_with_both_lines() -> None:
    assert problems("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n") == ["c.yaml:5: `b.c` is set twice, first on line 3"]


def test_all_duplicates_are_shown_at_once() -> None:
    assert len(problems("a: 1\na: 2\nb: 1\nb: 2\n")) == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("k: 2024-02-01", "2024-02-01"),
        ("k: 12:30:45", "12:30:45"),
        ("k: 0x1f", 31),
        ("k: 0o17", 15),
        ("k: 1_000", 1000),
        ("k: 1e3", 1000.0),
        ("k: -0.5", -0.5),
        ("k: yes", True),
        ("k: Off", False),
        ("k: ~", None),
        ("k:", None),
        ("k: '1'", "1"),
        ("k: !!str 1", "1"),
        ("k: 6000.0", 6000.0),
        ("k: .nan", ".nan"),
    ],
)
def test_scalars_are_read_as_people_mean_them(text: str, value: object) -> None:
    assert parse(text, "c.yaml").data == {"k": value}


def test_keys_are_text_as_written() -> None:
    assert parse("on: failure\nyes: 1\n2: 3\n", "c.yaml").data == {"on": "failure", "yes": 1, "2": 3}


def test_anchors_and_merges_work() -> None:
    document = parse("a: &d {x: 1, y: 2}\nb:\n  <<: *d\n  y: 3\n", "c.yaml")
    assert document.data["b"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a:\n\t- b\n", "c.yaml:2: not YAML: a tab; indent with spaces"),
        ("a: [1,\n", "c.yaml:2: not YAML"),
        ("a:\n- b: 1\n  - b: 2\n", "c.yaml:3: not YAML: a list item out of place; the dashes of one list"),
        ("a:\n - b: 1\n  - b: 2\n", "c.yaml:3: not YAML: a list item out of place; the dashes of one list"),
        ("a: 'x\n", "not YAML"),
        ("a: \x01\n", "c.yaml:1: not YAML: a control character"),
        ("- a\n", "c.yaml:1: the top level must be"),
        ("just text", "c.yaml:1: the top level must be"),
        ("a: 1\n---\nb: 2\n", "c.yaml:"),
        ("a: !!python/object/apply:os.system [x]\n", "c.yaml:1: "),
        ("a: !custom x\n", "c.yaml:1: the tag !custom is not supported"),
        ("? [a]\n: 1\n", "c.yaml:1: a key must be plain text"),
        ("a: &x [*x]\n", "c.yaml:1: nested too deeply"),
        ("a: *nowhere\n", "c.yaml:1: not YAML"),
        ("[" * 5000, "nested too deeply"),
        (b"a: \xff\n", "c.yaml:1: not UTF-8"),
    ],
)
def test_what_is_no_config_is_refused_with_its_line(text: str | bytes, part: str) -> None:
    assert part in problems(text)[0]


def test_multiplying_aliases_are_refused_in_bounded_time() -> None:
    lines = ["a0: &a0 [1,2,3,4,5,6,7,8,9]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    start = time.process_time()
    assert "aliases" in problems("\n".join(lines))[0]
    assert time.process_time() - start < 30


def test_a_misindented_list_item_is_shown_with_the_line_to_write() -> None:
    text = "model_list:\n - model_name: a\n    litellm_params:\n      model: a\n"
    (problem,) = problems(text)
    assert problem.startswith("c.yaml:2: not YAML: ")
    assert 'write "  - model_name: a" instead of " - model_name: a"' in problem


def test_every_misindented_item_is_shown_and_writing_the_lines_mends_the_file() -> None:
    text = "model_list:\n"
    for name in ("a", "b", "c"):
        text += (
            f" - model_name: {name}  # the model\n\n    # its parameters\n    litellm_params:\n      model: {name}\n"
        )
    found = problems(text)
    assert [problem.split(":")[1] for problem in found] == ["2", "7", "12"]
    lines = text.splitlines()
    for problem in found:
        match = re.search(r'write "(.*)" instead of "(.*)"$', problem)
        assert match is not None
        lines[lines.index(match[2])] = match[1]
    mended = parse("\n".join(lines), "c.yaml")
    assert [entry["model_name"] for entry in mended.data["model_list"]] == ["a", "b", "c"]


def test_a_key_in_a_misindented_line_is_not_shown() -> None:
    (problem,) = problems("x:\n - api_key: sk-secret\n    model: a\n")
    assert "sk-secret" not in problem


@pytest.mark.skipif(not SEEDS.is_dir(), reason="the seeds are not beside the repository")
def test_the_seeds_misindented_blocks_are_refused_and_all_others_parse() -> None:
    refused = []
    for path in sorted(SEEDS.glob("*.md")):
        for block in re.findall(r"```yaml\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            try:
                parse(block, path.name)
            except ConfigError as error:
                refused.append(error.problems)
    assert len(refused) == 5
    assert all(len(found) == 1 and '"  - model_name: gpt-' in found[0] for found in refused)


@given(st.one_of(st.text(), st.binary()))
def test_hostile_text_raises_nothing_but_a_config_error(text: str | bytes) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse(text, "c.yaml"), Document)


@given(st.text(alphabet=" \n-:[]{}&*!|>'\"#%@`,?ab1\t<.~", max_size=60))
def test_text_of_yaml_signs_raises_nothing_but_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse(text, "c.yaml"), Document)


def test_paths_are_written_as_in_messages() -> None:
    assert path_text(("model_list", 0, "litellm_params", "model")) == "model_list[0].litellm_params.model"
