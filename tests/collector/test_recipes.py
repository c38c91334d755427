"""The Collector's configs that are handed out: each is taken by the real Collector."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from otelgw.collector_config import faults, parse, variables
from otelgw.collector_render import TARGETS, render
from tests.servers import require

RECIPES = sorted((Path(__file__).parents[2] / "collector" / "recipes").glob("*.yaml"))
BY_HAND = {"kafka_consumer", "loadbalancing_tier1", "loadbalancing_tier2", "tail_sampling"}


def test_there_is_a_recipe_for_every_backend() -> None:
    assert {recipe.stem for recipe in RECIPES} == {*TARGETS, *BY_HAND}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_the_collector_takes_it_as_it_stands(recipe: Path) -> None:
    program = require("collector")

    run = subprocess.run([program, "validate", "--config", recipe], capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_it_is_sound_to_the_check_that_needs_no_collector(recipe: Path) -> None:
    tree, problems = parse(recipe.read_text())

    assert (problems, faults(tree)) == ([], [])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_it_names_every_variable_that_it_needs(recipe: Path) -> None:
    text = recipe.read_text()
    heading = text.partition("receivers:")[0]

    assert [name for name in variables(parse(text)[0]) if name not in heading] == []


@pytest.mark.parametrize("name", TARGETS)
def test_it_is_what_render_prints_without_a_config(name: str) -> None:
    recipe = next(each for each in RECIPES if each.stem == name)

    assert recipe.read_text() == render(None, name), f"otelgw collector render --to {name} > {recipe.name}"
