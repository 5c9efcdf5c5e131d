"""What the words of a command line are taken for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext

from pipeline.words import asks_about, spell_out

COMMANDS = [
    ParserContext("setup", args=[Argument("dev", kind=bool)]),
    ParserContext("build", args=[Argument("release", optional=True)]),
    ParserContext("check", args=[Argument("target", kind=list), Argument("expect")]),
    ParserContext("release", args=[Argument("release", optional=True)]),
]


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ("setup --help", "setup"),
        ("build 4.17 -h", "build"),
        ("setup build --help", "build"),
        ("check --expect build --help", "check"),
        ("check --expect --help x", None),
        ("build 4.17", None),
    ],
)
def test_help_behind_a_command_is_about_it(given: str, command: str | None) -> None:
    """If this fails, who asks what a command does is told that --help is no release."""
    assert asks_about(given.split(), COMMANDS) == command


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("setup build 4.17", "setup build --release=4.17"),
        ("build", "build"),
        (
            "build 4.17 check 4.17 x.pkg.tar.xz",
            "build --release=4.17 check --target=4.17 --target=x.pkg.tar.xz",
        ),
        ("check --expect 4.17 x.pkg.tar.xz", "check --expect 4.17 --target=x.pkg.tar.xz"),
        ("check --expect=4.17 x", "check --expect=4.17 --target=x"),
        ("nothing 4.17", "nothing 4.17"),
    ],
)
def test_releases_may_be_named_without_an_option(given: str, meant: str) -> None:
    """`./inv setup release 4.17` is the first thing that README says."""
    assert spell_out(given.split(), COMMANDS) == meant.split()


@given(st.lists(st.one_of(st.sampled_from(["build", "check", "--expect", "-e", "--", "release"]), st.text())))
def test_no_word_is_lost(words: list[str]) -> None:
    """A word that vanished would be a command carried out on something else."""
    result = spell_out(words, COMMANDS)
    assert len(result) == len(words)
    for word, spelt in zip(words, result, strict=True):
        assert spelt == word or spelt.endswith(f"={word}")
