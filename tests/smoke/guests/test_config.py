"""What a guest's configuration says, read as xl reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.smoke.guests.config import GuestConfig

EXAMPLE = """\
# A web server.
name = "web"; memory=0x200
kernel = '/boot/it\\'s' # not the package's
disk = [
    'phy:/dev/vg/web,xvda,w',  # its root

    "file:/srv/cd.iso,hdc:cdrom,r",
]
disk += [ "target" ]
extra = "a\\tb"
extra += " c"
ioports = [ ["1", 2], [] ]
vif=[]"""

strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(strings, lambda inner: st.lists(inner, max_size=4), max_leaves=8)
names = st.from_regex(r"[a-z][._0-9a-z]{0,8}", fullmatch=True)


def test_what_a_configuration_says() -> None:
    """If this fails, a guest is started otherwise than its owner starts it."""
    assert GuestConfig.parse(EXAMPLE).settings == {
        "name": "web",
        "memory": "0x200",
        "kernel": "/boot/it's",
        "disk": ["phy:/dev/vg/web,xvda,w", "file:/srv/cd.iso,hdc:cdrom,r", "target"],
        "extra": "a\tb c",
        "ioports": [["1", "2"], []],
        "vif": [],
    }


@given(st.dictionaries(names, values, max_size=6))
def test_what_is_written_is_what_was_read(settings: dict[str, str | list[object]]) -> None:
    """If this fails, xl on the test host gets another guest than the one that was named."""
    config = GuestConfig(settings)  # type: ignore[arg-type]
    assert GuestConfig.parse(str(config)) == config
    # One line each, as the xl of any age takes it.
    assert str(config).count("\n") == len(settings)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("name = 'web'\nimport os\n", "line 2"),
        ("name = web\n", "line 1"),
        ("a = 1 b = 2\n", "line 1"),
        ("a = 'x\n", "line 1"),
        ("\n\na = [1, , 2]\n", "line 3"),
        ("a = '\\q'\n", "line 1"),
        ("a = [1]\na += 'x'\n", "line 2"),
        ("A = 1\n", "line 1"),
        ("a = " + "[" * 20_000 + "]" * 20_000, "lists within lists"),
    ],
)
def test_what_xl_would_not_take_is_told_by_its_line(text: str, where: str, tmp_path: Path) -> None:
    """If this fails, an old file that is Python starts some other guest, or ends in a traceback."""
    file = tmp_path / "guest.cfg"
    file.write_text(text)
    with pytest.raises(UsageError, match=where):
        GuestConfig.read(file)


@pytest.mark.parametrize("data", [b"name = '\xff'\n", b"#" * (1 << 20), None])
def test_what_is_no_text_is_told(data: bytes | None, tmp_path: Path) -> None:
    """If this fails, naming a guest's disk for its configuration ends in a traceback."""
    file = tmp_path / "guest.cfg"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(UsageError, match=r"guest\.cfg"):
        GuestConfig.read(file)


def test_values_of_another_kind_are_told() -> None:
    """If this fails, a list where a name belongs ends in a traceback."""
    config = GuestConfig.parse("name = ['a']\nmemory = 'much'\ndisk = [['a']]\nvif = 'bridge=br0'\n")
    assert config.strings("vif") == ["bridge=br0"]
    for ask in (
        lambda: config.string("name"),
        lambda: config.number("memory"),
        lambda: config.strings("disk"),
    ):
        with pytest.raises(UsageError):
            ask()
