"""The data key: made once, kept from others, wrapped when there is something to wrap it with."""

from pathlib import Path

import pytest

from pyswarm.manager.sealing.keys import FILE, KeyFileDamaged, Locked, open_sealer
from pyswarm.manager.sealing.sealer import SALT_BYTES, SealBroken

SALT = bytes(SALT_BYTES)
KEK, OTHER_KEK = b"k" * 32, b"o" * 32


def test_a_manager_keeps_its_data_key(tmp_path: Path) -> None:
    sealed = open_sealer(tmp_path / "sealing").for_file(b"t", SALT).seal(7, b"secret", b"head")
    assert open_sealer(tmp_path / "sealing").for_file(b"t", SALT).open(7, sealed, b"head") == b"secret"


def test_every_manager_has_a_data_key_of_its_own(tmp_path: Path) -> None:
    sealed = open_sealer(tmp_path / "a").for_file(b"t", SALT).seal(7, b"secret", b"")
    with pytest.raises(SealBroken):
        open_sealer(tmp_path / "b").for_file(b"t", SALT).open(7, sealed, b"")


def test_only_the_owner_can_read_the_key_file(tmp_path: Path) -> None:
    open_sealer(tmp_path / "sealing")
    assert (tmp_path / "sealing").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "sealing" / FILE).stat().st_mode & 0o777 == 0o600


def test_a_wrapped_key_opens_with_its_kek_only(tmp_path: Path) -> None:
    sealed = open_sealer(tmp_path, kek=KEK).for_file(b"t", SALT).seal(0, b"secret", b"")
    assert open_sealer(tmp_path, kek=KEK).for_file(b"t", SALT).open(0, sealed, b"") == b"secret"
    with pytest.raises(Locked):
        open_sealer(tmp_path)
    with pytest.raises(Locked):
        open_sealer(tmp_path, kek=OTHER_KEK)


def test_a_damaged_key_file_is_refused_with_a_remedy(tmp_path: Path) -> None:
    open_sealer(tmp_path)
    (tmp_path / FILE).write_bytes(b"\x93\x01")
    with pytest.raises(KeyFileDamaged) as refused:
        open_sealer(tmp_path)
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("number", "header", "salt", "kind"),
    [
        pytest.param(8, b"head", SALT, b"t", id="another frame's number"),
        pytest.param(7, b"tail", SALT, b"t", id="another header"),
        pytest.param(7, b"head", b"s" * SALT_BYTES, b"t", id="another file"),
        pytest.param(7, b"head", SALT, b"u", id="a file of another kind"),
    ],
)
def test_a_frame_opens_only_where_it_was_sealed(
    tmp_path: Path, number: int, header: bytes, salt: bytes, kind: bytes
) -> None:
    sealer = open_sealer(tmp_path)
    sealed = sealer.for_file(b"t", SALT).seal(7, b"secret", b"head")
    with pytest.raises(SealBroken):
        sealer.for_file(kind, salt).open(number, sealed, header)


def test_a_sealer_does_not_show_its_key(tmp_path: Path) -> None:
    sealer = open_sealer(tmp_path)
    assert repr(sealer) == "Sealer(…)"
