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
        ("a = 1\r\n", "line 1"),
        ("a = " + "[" * 20_000 + "]" * 20_000, "lists within lists"),
    ],
)
def test_what_xl_would_not_take_is_told_by_its_line(text: str, where: str, tmp_path: Path) -> None:
    """If this fails, an old file that is Python starts some other guest, or ends in a traceback."""
    file = tmp_path / "guest.cfg"
    file.write_text(text)
    with pytest.raises(UsageError, match=where):
        GuestConfig.read(file)


def test_what_is_no_configuration_is_told(tmp_path: Path) -> None:
    """If this fails, naming a guest's disk for its configuration ends in a traceback, or fills the memory."""
    file = tmp_path / "guest.cfg"
    with pytest.raises(UsageError, match="cannot be read"):
        GuestConfig.read(file)
    file.write_bytes(b"name = '\xff'\n")
    with pytest.raises(UsageError, match="not UTF-8"):
        GuestConfig.read(file)
    with file.open("wb") as disk:
        disk.truncate(1 << 40)
    with pytest.raises(UsageError, match="more than"):
        GuestConfig.read(file)


def test_comments_may_be_in_any_encoding(tmp_path: Path) -> None:
    """If this fails, a comment by somebody called J\u00fcrgen makes a configuration unreadable."""
    file = tmp_path / "guest.cfg"
    file.write_bytes(b"# J\xfcrgen's\nname = 'web'\n")
    assert GuestConfig.read(file).settings == {"name": "web"}


@pytest.mark.parametrize(
    ("text", "number"), [("512", 512), ("0x200", 512), ("0X1f", 31), ("010", 8), ("0", 0), ("", 0)]
)
def test_numbers_are_what_the_c_library_takes_them_for(text: str, number: int) -> None:
    """If this fails, a guest's memory is another than under xl."""
    assert GuestConfig({"memory": text}).number("memory") == number


@pytest.mark.parametrize("text", ["much", "1_000", "-5", "0x", "09", "1f", " 1", "9" * 20])
def test_what_is_no_number_is_told(text: str) -> None:
    """If this fails, a typing error in a guest's memory ends in a traceback."""
    with pytest.raises(UsageError, match="no number"):
        GuestConfig({"memory": text}).number("memory")


def test_values_of_another_kind_are_told() -> None:
    """If this fails, a list where a name belongs ends in a traceback."""
    config = GuestConfig.parse("name = ['a']\nmemory = 'much'\ndisk = [['a']]\nvif = 'bridge=br0'\n")
    for ask in (
        # xl starts a guest without the card, and says so among other things.
        lambda: config.strings("vif"),
        lambda: config.string("name"),
        lambda: config.number("memory"),
        lambda: config.strings("disk"),
    ):
        with pytest.raises(UsageError):
            ask()
